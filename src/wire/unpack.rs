//! Reading the dialect from a complete message: a cursor that borrows what it reads.
//!
//! Byte strings may come as raw (2010), or as `bin` and `str8` from clients written today. Nothing is allocated and
//! no length is trusted before the bytes are seen to be there.

use rmp::Marker;

use super::{DEPTH_LIMIT, Error};

/// A cursor over the bytes of one message.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes that have not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Error::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn marker(&mut self) -> Result<Marker, Error> {
        let (first, rest) = self.rest.split_first().ok_or(Error::Malformed)?;
        self.rest = rest;
        Ok(Marker::from_u8(*first))
    }

    #[inline]
    fn be<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Error::Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    fn len8(&mut self) -> Result<usize, Error> {
        Ok(usize::from(u8::from_be_bytes(self.be()?)))
    }

    #[inline]
    fn len16(&mut self) -> Result<usize, Error> {
        Ok(usize::from(u16::from_be_bytes(self.be()?)))
    }

    #[inline]
    fn len32(&mut self) -> Result<usize, Error> {
        usize::try_from(u32::from_be_bytes(self.be()?)).map_err(|_| Error::Malformed)
    }

    /// Reads an unsigned integer; a signed one that is not negative counts as one.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, Error> {
        let signed = match self.marker()? {
            Marker::FixPos(value) => return Ok(u64::from(value)),
            Marker::U8 => return Ok(u64::from(u8::from_be_bytes(self.be()?))),
            Marker::U16 => return Ok(u64::from(u16::from_be_bytes(self.be()?))),
            Marker::U32 => return Ok(u64::from(u32::from_be_bytes(self.be()?))),
            Marker::U64 => return Ok(u64::from_be_bytes(self.be()?)),
            Marker::I8 => i64::from(i8::from_be_bytes(self.be()?)),
            Marker::I16 => i64::from(i16::from_be_bytes(self.be()?)),
            Marker::I32 => i64::from(i32::from_be_bytes(self.be()?)),
            Marker::I64 => i64::from_be_bytes(self.be()?),
            _ => return Err(Error::Malformed),
        };
        u64::try_from(signed).map_err(|_| Error::Malformed)
    }

    /// Reads an unsigned integer of at most 32 bits.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, Error> {
        u32::try_from(self.u64()?).map_err(|_| Error::Malformed)
    }

    /// Reads true or false.
    pub fn bool(&mut self) -> Result<bool, Error> {
        match self.marker()? {
            Marker::True => Ok(true),
            Marker::False => Ok(false),
            _ => Err(Error::Malformed),
        }
    }

    /// Reads a byte string in any of its forms.
    #[inline]
    pub fn raw(&mut self) -> Result<&'a [u8], Error> {
        let len = match self.marker()? {
            Marker::FixStr(len) => usize::from(len),
            Marker::Str8 | Marker::Bin8 => self.len8()?,
            Marker::Str16 | Marker::Bin16 => self.len16()?,
            Marker::Str32 | Marker::Bin32 => self.len32()?,
            _ => return Err(Error::Malformed),
        };
        self.take(len)
    }

    /// Reads an array's header and returns its number of elements.
    #[inline]
    pub fn array(&mut self) -> Result<usize, Error> {
        match self.marker()? {
            Marker::FixArray(len) => Ok(usize::from(len)),
            Marker::Array16 => self.len16(),
            Marker::Array32 => self.len32(),
            _ => Err(Error::Malformed),
        }
    }

    /// Reads a map's header and returns its number of pairs.
    pub fn map(&mut self) -> Result<usize, Error> {
        match self.marker()? {
            Marker::FixMap(len) => Ok(usize::from(len)),
            Marker::Map16 => self.len16(),
            Marker::Map32 => self.len32(),
            _ => Err(Error::Malformed),
        }
    }

    /// Reads nil if it is next; says whether it was.
    #[inline]
    pub fn nil(&mut self) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if Marker::from_u8(*first) == Marker::Null => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Passes over one object of any type and returns its bytes.
    pub fn skip(&mut self) -> Result<&'a [u8], Error> {
        let start = self.rest;
        self.skip_within(DEPTH_LIMIT)?;
        let len = start.len().checked_sub(self.rest.len()).ok_or(Error::Malformed)?;
        start.get(..len).ok_or(Error::Malformed)
    }

    fn skip_within(&mut self, depth: usize) -> Result<(), Error> {
        let head = Head::read(self.rest, usize::MAX)?.ok_or(Error::Malformed)?;
        self.take(head.len)?;
        if head.children > 0 {
            let depth = depth.checked_sub(1).ok_or(Error::TooDeep)?;
            for _ in 0..head.children {
                self.skip_within(depth)?;
            }
        }
        Ok(())
    }
}

/// The extent of one object without its children: what a scan needs to step over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes of the marker, of its length field, and of a scalar's or byte string's content.
    pub(super) len: usize,
    /// Objects that follow as elements of an array or map.
    pub(super) children: u64,
}

impl Head {
    /// Reads the object at the start of `bytes`; `None` if its marker or length field has not arrived in full.
    ///
    /// The content of a byte string need not be there: [`Head::len`] may exceed `bytes`. More than `limit` bytes is
    /// [`Error::TooLong`].
    #[inline]
    pub(super) fn read(bytes: &[u8], limit: usize) -> Result<Option<Self>, Error> {
        let Some((first, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let head = match Marker::from_u8(*first) {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => Self::scalar(0),
            Marker::U8 | Marker::I8 => Self::scalar(1),
            Marker::U16 | Marker::I16 => Self::scalar(2),
            Marker::U32 | Marker::I32 | Marker::F32 => Self::scalar(4),
            Marker::U64 | Marker::I64 | Marker::F64 => Self::scalar(8),
            Marker::FixStr(len) => Self::scalar(usize::from(len)),
            Marker::FixArray(len) => Self { len: 1, children: u64::from(len) },
            Marker::FixMap(len) => Self { len: 1, children: u64::from(len) * 2 },
            Marker::Str8 | Marker::Bin8 => return Self::content(be(rest, 1), 1, limit),
            Marker::Str16 | Marker::Bin16 => return Self::content(be(rest, 2), 2, limit),
            Marker::Str32 | Marker::Bin32 => return Self::content(be(rest, 4), 4, limit),
            Marker::Array16 => return Ok(be(rest, 2).map(|len| Self { len: 3, children: len })),
            Marker::Array32 => return Ok(be(rest, 4).map(|len| Self { len: 5, children: len })),
            Marker::Map16 => return Ok(be(rest, 2).map(|len| Self { len: 3, children: len * 2 })),
            Marker::Map32 => return Ok(be(rest, 4).map(|len| Self { len: 5, children: len * 2 })),
            _ => return Err(Error::Malformed),
        };
        Ok(Some(head))
    }

    fn scalar(content: usize) -> Self {
        Self { len: 1 + content, children: 0 }
    }

    fn content(len: Option<u64>, width: usize, limit: usize) -> Result<Option<Self>, Error> {
        let Some(len) = len else { return Ok(None) };
        usize::try_from(len)
            .ok()
            .and_then(|len| len.checked_add(1 + width))
            .filter(|len| *len <= limit)
            .map(|len| Some(Self { len, children: 0 }))
            .ok_or(Error::TooLong(limit))
    }
}

/// The first `width` bytes as a big-endian number, if they are there.
#[inline]
fn be(bytes: &[u8], width: usize) -> Option<u64> {
    bytes.get(..width).map(|bytes| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}
