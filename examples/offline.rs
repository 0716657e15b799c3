//! Reads a store without a server: one key, or a list of all.
//!
//! ```text
//! cargo run --example offline -- kumo-cluster/server1.tch
//! cargo run --example offline -- kumo-cluster/server1.tch greeting
//! ```
//!
//! The file is the one that a server was given with `-s`, or a backup of it. Nothing is changed. While a server has the file
//! open it is refused: `kumo-server ctl MANAGER backup` makes a copy that can be read at any time.

use std::io::{BufWriter, Write};

use kumo_server::offline::{ReadError, Reader};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1);
    let path = args.next().ok_or("usage: offline STORE [KEY]")?;
    let mut store = match Reader::open(&path) {
        Ok(store) => store,
        Err(ReadError::InUse(line)) => return Err(format!("{line} (or read a backup)").into()),
        Err(error) => return Err(error.into()),
    };
    let mut out = BufWriter::new(std::io::stdout().lock());

    if let Some(key) = args.next() {
        // One key is looked up in an index.
        let record = store.get(key.as_encoded_bytes())?.ok_or("not found")?;
        writeln!(out, "{}", record.data.escape_ascii())?;
    } else {
        // All are read from end to end, in bounded memory.
        let mut count = 0;
        for record in store.records()? {
            // If a part of the file is damaged, the last item is an error that says so.
            let record = record?;
            count += 1;
            writeln!(out, "{} at {}: {} bytes", record.key.escape_ascii(), record.clocktime, record.data.len())?;
        }
        writeln!(out, "{count} records")?;
    }
    out.flush()?;
    Ok(())
}
