//! Recognising the file at a path, making a new tree, and opening connections with the settings they need.

use super::row::Tally;
use crate::store::error::OpenError;
use crate::store::paths::{directory, side_path};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use std::fmt::Write;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

/// `kumo` in ASCII: the file belongs to this program.
const APPLICATION_ID: u32 = 0x6b75_6d6f;
/// Format of the tables.
const FORMAT: u32 = 1;
/// Format of a tree with a floor: programs that do not know of one would take old records for current.
const FORMAT_FLOOR: u32 = 2;
/// First SQLite without the WAL-reset bug.
const OLDEST_SQLITE: i32 = 3_051_003;
/// Page cache of the connection that merges, in KiB.
const WRITER_CACHE_KIB: i64 = 16 << 10;
/// Page cache of all reading connections together, in KiB.
const READERS_CACHE_KIB: i64 = 32 << 10;

const TABLES: &str = "
    CREATE TABLE record(
        hash INTEGER PRIMARY KEY, key BLOB NOT NULL, value BLOB NOT NULL, generation INTEGER NOT NULL, deleted INTEGER
    ) STRICT;
    CREATE INDEX record_tombstone ON record(deleted) WHERE deleted IS NOT NULL;
    CREATE TABLE twin(
        hash INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, generation INTEGER NOT NULL, deleted INTEGER,
        PRIMARY KEY(hash, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX twin_tombstone ON twin(deleted) WHERE deleted IS NOT NULL;
    CREATE TABLE meta(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
";

/// Looks at the file at `path` without changing anything. `false`: there is none, or an empty one.
///
/// Only for a moment at which this process has no SQLite connection to the file: closing any descriptor of a file drops
/// the process's locks on it.
pub(in crate::store) fn inspect(path: &Path) -> Result<bool, OpenError> {
    let foreign = |what: &str| OpenError::Foreign { path: path.to_path_buf(), what: what.to_owned() };
    let failed = |source: io::Error| OpenError::Io { path: path.to_path_buf(), source };
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    if metadata.is_dir() {
        return Err(foreign("a directory"));
    }
    if !metadata.is_file() {
        return Err(foreign("not a regular file"));
    }
    let mut head = Vec::new();
    File::open(path).and_then(|file| file.take(100).read_to_end(&mut head)).map_err(failed)?;
    if head.is_empty() {
        return Ok(false);
    }
    if head.starts_with(b"ToKyO CaBiNeT") {
        return Err(OpenError::TokyoCabinet { path: path.to_path_buf() });
    }
    if !head.starts_with(b"SQLite format 3\0") || head.len() < 100 {
        return Err(foreign("an unknown kind of file"));
    }
    let field = |offset: usize| {
        head.get(offset..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes))
    };
    let (application, format) = (field(68), field(60));
    if application != APPLICATION_ID {
        return Err(foreign(&format!("another program's SQLite database (application id {application})")));
    }
    if format > FORMAT_FLOOR {
        return Err(OpenError::Newer { path: path.to_path_buf(), found: format, known: FORMAT_FLOOR });
    }
    Ok(true)
}

/// Makes a new tree at `path`: under another name first, so that it is there as a whole or not at all.
fn create(path: &Path, store_id: u64) -> Result<(), OpenError> {
    let temporary = side_path(path, ".create");
    let failed = |source: io::Error| OpenError::Io { path: temporary.clone(), source };
    let refused = |source: rusqlite::Error| OpenError::Sqlite { path: temporary.clone(), source };
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    // Syncing is done by hand below. A write-ahead log lying there would be applied to the new file.
    for suffix in ["-wal", "-shm", "-journal"] {
        let stale = side_path(path, suffix);
        if stale.exists() {
            let what = format!("{} exists without its database", stale.display());
            return Err(OpenError::Foreign { path: stale, what });
        }
    }
    let connection = make(&temporary, store_id)?;
    connection.close().map_err(|(_, source)| refused(source))?;
    let sync = || {
        File::open(&temporary)?.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(directory(path))?.sync_all()
    };
    sync().map_err(failed)
}

/// Makes the tables of an empty store in the file at `path`. Nothing is durable, and a crash leaves anything.
pub(in crate::store) fn make(path: &Path, store_id: u64) -> Result<Connection, OpenError> {
    let tally = Tally { redo_from: 1, clean: true, ..Tally::default() };
    let tables = || {
        let connection = Connection::open(path)?;
        connection.execute_batch(&format!(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA page_size = 4096; BEGIN; {TABLES}
             PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT};"
        ))?;
        set_identity(&connection, store_id, &tally)?;
        connection.execute_batch("COMMIT")?;
        Ok(connection)
    };
    tables().map_err(|source| OpenError::Sqlite { path: path.to_path_buf(), source })
}

/// Writes which store this is and what it holds.
pub(super) fn set_identity(connection: &Connection, store_id: u64, tally: &Tally) -> rusqlite::Result<()> {
    let tally = serde_json::to_string(tally).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let mut put = connection.prepare("INSERT OR REPLACE INTO meta(name, value) VALUES(?1, CAST(?2 AS BLOB))")?;
    put.execute(("store_id", format!("{store_id:016x}")))?;
    put.execute(("tally", tally))?;
    Ok(())
}

/// Notes in the file's header whether there is a floor.
pub(super) fn set_format(connection: &Connection, floor: bool) -> rusqlite::Result<()> {
    let format = if floor { FORMAT_FLOOR } else { FORMAT };
    connection.execute_batch(&format!("PRAGMA user_version = {format}"))
}

/// The connection that writes, the store's id and its tally. Makes the tree, with `new_id`, if there is none.
///
/// The caller has the store's lock and has [inspected](inspect) the file.
pub(in crate::store) fn open(path: &Path, new_id: u64, wal_bytes: u64) -> Result<(Connection, u64, Tally), OpenError> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(OpenError::OldSqlite { found: rusqlite::version() });
    }
    if !inspect(path)? {
        create(path, new_id)?;
    }
    let refused = |source: rusqlite::Error| OpenError::Sqlite { path: path.to_path_buf(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(refused)?;
    let limit = i64::try_from(wal_bytes).unwrap_or(i64::MAX);
    settle(&connection, WRITER_CACHE_KIB).map_err(refused)?;
    // A new store and a backup are not in this mode yet. The switch goes through a rollback journal, which is only safe
    // from a loss of power with FULL.
    let mode: String = connection
        .execute_batch("PRAGMA synchronous = FULL")
        .and_then(|()| connection.query_row("PRAGMA journal_mode = WAL", (), |row| row.get(0)))
        .map_err(refused)?;
    connection.execute_batch("PRAGMA synchronous = NORMAL").map_err(refused)?;
    if mode != "wal" {
        let what = format!("on a file system without write-ahead logging (journal mode {mode})");
        return Err(OpenError::Foreign { path: path.to_path_buf(), what });
    }
    connection
        .query_row(&format!("PRAGMA journal_size_limit = {limit}"), (), |_| Ok(()))
        .and_then(|()| connection.execute_batch("PRAGMA wal_autocheckpoint = 0").or_else(ignore_rows))
        .map_err(refused)?;
    let (store_id, tally) = identity(&connection, path)?;
    Ok((connection, store_id, tally))
}

/// `execute_batch` complains about a PRAGMA that answers.
fn ignore_rows(error: rusqlite::Error) -> rusqlite::Result<()> {
    if matches!(error, rusqlite::Error::ExecuteReturnedResults) { Ok(()) } else { Err(error) }
}

/// The store's id and tally.
pub(in crate::store) fn identity(connection: &Connection, path: &Path) -> Result<(u64, Tally), OpenError> {
    let get = |name: &str| {
        connection
            .query_row("SELECT CAST(value AS TEXT) FROM meta WHERE name = ?1", [name], |row| row.get::<_, String>(0))
            .map_err(|source| OpenError::Sqlite { path: path.to_path_buf(), source })
    };
    let damaged = |name: &str| OpenError::Foreign {
        path: path.to_path_buf(),
        what: format!("a store whose meta table has no valid {name}"),
    };
    let store_id = u64::from_str_radix(&get("store_id")?, 16).map_err(|_| damaged("store id"))?;
    let tally = serde_json::from_str(&get("tally")?).map_err(|_| damaged("tally"))?;
    Ok((store_id, tally))
}

/// Settings of every connection.
///
/// WAL with NORMAL: a commit survives the process, and the checkpoint syncs before it overwrites. What must survive a
/// loss of power is committed with FULL. No mmap: an I/O error would be a signal. Sorting in memory: temporary files of
/// SQLite have no bound of ours. No checkpoint when the last connection goes, however that comes about: only
/// [`Writer::close`](super::Writer::close) knows whether the write-ahead log can be trusted.
fn settle(connection: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    for pragma in [
        "synchronous = NORMAL".to_owned(),
        format!("cache_size = -{cache_kib}"),
        "mmap_size = 0".to_owned(),
        "temp_store = MEMORY".to_owned(),
        "trusted_schema = OFF".to_owned(),
    ] {
        connection.execute_batch(&format!("PRAGMA {pragma}")).or_else(ignore_rows)?;
    }
    Ok(())
}

/// Rolls back what a commit or rollback that failed has left open: it would keep the checkpoint waiting, and the next
/// transaction from beginning.
pub(super) fn end_transaction(connection: &Connection) -> rusqlite::Result<()> {
    if connection.is_autocommit() { Ok(()) } else { connection.execute_batch("ROLLBACK") }
}

/// A connection that only reads; `sharing` of them will be open.
pub(in crate::store) fn open_reader(path: &Path, sharing: usize) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    let share = READERS_CACHE_KIB / i64::try_from(sharing.max(1)).unwrap_or(1);
    settle(&connection, share.max(256))?;
    connection.execute_batch("PRAGMA query_only = ON").or_else(ignore_rows)?;
    Ok(connection)
}

/// A connection to a store that no process has open; reading through it changes nothing, and adds no files.
///
/// Without a write-ahead log the file is taken for one that cannot change. With one, locking is exclusive from the
/// beginning, so that the log's index is kept in memory, and the log stays as it is at the end.
pub(in crate::store) fn open_at_rest(path: &Path) -> rusqlite::Result<Connection> {
    let wal = std::fs::metadata(side_path(path, "-wal")).is_ok_and(|file| file.len() > 0);
    let connection = if wal {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE").or_else(ignore_rows)?;
        connection
    } else {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        Connection::open_with_flags(unchanging_uri(path), flags)?
    };
    settle(&connection, WRITER_CACHE_KIB)?;
    connection.execute_batch("PRAGMA cell_size_check = ON; PRAGMA query_only = ON").or_else(ignore_rows)?;
    Ok(connection)
}

/// The URI by which SQLite opens a file that will not change.
fn unchanging_uri(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            _ => {
                let _ = write!(uri, "%{byte:02X}");
            }
        }
    }
    uri + "?immutable=1"
}
