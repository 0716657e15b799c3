//! Making a hash database file from records that come bucket by bucket.
//!
//! A bucket holds the place of its first record. Further records of a bucket form a tree by hash byte, then length, then
//! bytes of the key, the greater ones to the left; here each tree is a list, since records come in that order and there
//! are more buckets than records. Places have 64 bits ("large"), so that no size is too large.

use std::io::{self, Seek, SeekFrom, Write};

use super::format::{HEADER_LEN, Layout, MAGIC, OPTION_LARGE, RECORD};
use super::scan::hash_byte;

/// Blocks begin at multiples of two to this power.
const ALIGNMENT_POWER: u8 = 4;
/// The free block pool may remember two to this power.
const POOL_POWER: u8 = 10;
/// Bytes of the free block pool: 64, and four for each block it may remember.
const POOL: u64 = 64 + (4 << POOL_POWER);
/// Version of the format, as the older of the recorded libraries writes it.
const VERSION: &[u8] = b"\n1.0:910\n";

/// Where a key belongs among `buckets`.
pub(crate) fn bucket(key: &[u8], buckets: u64) -> u64 {
    let hash = key.iter().fold(19_780_211_u64, |hash, byte| hash.wrapping_mul(37).wrapping_add(u64::from(*byte)));
    hash.checked_rem(buckets).unwrap_or(0)
}

/// A key that sorts bytewise as the file wants its records: by bucket, hash byte, length, bytes.
pub(crate) fn file_order(key: &[u8], buckets: u64) -> Vec<u8> {
    let mut order = bucket(key, buckets).to_be_bytes().to_vec();
    order.push(hash_byte(key));
    order.extend((key.len() as u64).to_be_bytes());
    order.extend(key);
    order
}

/// The key that [`file_order`] was made from.
pub(crate) fn key_of_order(order: &[u8]) -> &[u8] {
    order.get(8 + 1 + 8..).unwrap_or_default()
}

/// A file being written: the buckets are filled in while records are appended.
pub(crate) struct Writer<W> {
    records_out: W,
    buckets_out: W,
    layout: Layout,
    buckets: u64,
    /// The bucket that is to be filled in next.
    next_bucket: u64,
    /// Where the next record goes.
    at: u64,
    first: u64,
    count: u64,
    /// The last record, which does not know yet whether another one follows in its bucket.
    last: Option<(u64, Vec<u8>)>,
}

impl<W: Write + Seek> Writer<W> {
    /// Begins a file with so many buckets. Both writers are of the same file, with places of their own.
    pub(crate) fn new(mut records_out: W, mut buckets_out: W, big_endian: bool, buckets: u64) -> io::Result<Self> {
        let layout = Layout { big_endian, large: true };
        let first = align(HEADER_LEN as u64 + buckets * 8 + POOL);
        buckets_out.seek(SeekFrom::Start(HEADER_LEN as u64))?;
        records_out.seek(SeekFrom::Start(first))?;
        let (next_bucket, at, count, last) = (0, first, 0, None);
        Ok(Self { records_out, buckets_out, layout, buckets, next_bucket, at, first, count, last })
    }

    /// Appends a record; they come in [`file_order`].
    pub(crate) fn append(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let bucket = bucket(key, self.buckets);
        let follows = self.last.as_ref().is_some_and(|(last, _)| *last == bucket);
        self.write_last(if follows { self.at } else { 0 })?;
        if !follows {
            self.fill_buckets(bucket)?;
            self.fill_bucket(self.at >> ALIGNMENT_POWER)?;
        }
        let mut head = vec![RECORD, hash_byte(key)];
        head.extend([0; 16]);
        let padding_at = head.len();
        head.extend([0; 2]);
        put_length(&mut head, key.len())?;
        put_length(&mut head, value.len())?;
        head.extend_from_slice(key);
        head.extend_from_slice(value);
        let padding = align(head.len() as u64) - head.len() as u64;
        let bytes = self.layout.bytes(padding, 2);
        head.splice(padding_at..padding_at + 2, bytes);
        head.resize(head.len() + usize::try_from(padding).unwrap_or(0), 0);
        self.at += head.len() as u64;
        self.last = Some((bucket, head));
        self.count += 1;
        Ok(())
    }

    /// Completes the file and returns its size.
    pub(crate) fn finish(mut self) -> io::Result<u64> {
        self.write_last(0)?;
        self.fill_buckets(self.buckets)?;
        let (size, layout) = (self.at, self.layout);
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(VERSION);
        header.resize(32, 0);
        header.extend([0, 0, ALIGNMENT_POWER, POOL_POWER, OPTION_LARGE, 0, 0, 0]);
        for field in [self.buckets, self.count, size, self.first] {
            header.extend(layout.bytes(field, 8));
        }
        header.resize(HEADER_LEN, 0);
        self.buckets_out.flush()?;
        self.buckets_out.seek(SeekFrom::Start(0))?;
        self.buckets_out.write_all(&header)?;
        self.buckets_out.flush()?;
        self.records_out.flush()?;
        Ok(size)
    }

    /// Writes the record that was held back, with the place of the next one in its bucket.
    fn write_last(&mut self, next: u64) -> io::Result<()> {
        let Some((_, mut bytes)) = self.last.take() else { return Ok(()) };
        bytes.splice(2..10, self.layout.bytes(next >> ALIGNMENT_POWER, 8));
        self.records_out.write_all(&bytes)
    }

    /// Marks buckets before `bucket` as empty.
    fn fill_buckets(&mut self, bucket: u64) -> io::Result<()> {
        while self.next_bucket < bucket {
            self.fill_bucket(0)?;
        }
        Ok(())
    }

    fn fill_bucket(&mut self, place: u64) -> io::Result<()> {
        self.next_bucket += 1;
        self.buckets_out.write_all(&self.layout.bytes(place, 8))
    }
}

fn align(offset: u64) -> u64 {
    offset.next_multiple_of(1 << ALIGNMENT_POWER)
}

fn put_length(out: &mut Vec<u8>, length: usize) -> io::Result<()> {
    // The library reads lengths into 32 bits with a sign.
    let mut length = u64::from(i32::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?.unsigned_abs());
    while length >= 128 {
        out.push(255 - u8::try_from(length % 128).unwrap_or(0));
        length /= 128;
    }
    out.push(u8::try_from(length).unwrap_or(0));
    Ok(())
}
