//! The file of an SQLite database: its journal, its disk, its file system.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use super::finding::{Code, Finding};
use super::postgres::read_only;
use super::units::bytes;
use crate::app::database::SQLITE_LOG_BYTES;

/// File systems of other machines. SQLite needs locks and shared memory that these do not have, or have only sometimes.
const NETWORK: [&str; 11] =
    ["nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs"];

/// What is known about the file and its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Whether the file has a write-ahead log.
    pub(super) has_log: bool,
    /// Whether a program of Windfall runs on the file.
    pub(super) is_running: bool,
    pub(super) is_writable: bool,
    /// The size of the file and of its log.
    pub(super) used_bytes: u64,
    /// What is left on the disk for this user.
    pub(super) free_bytes: u64,
    pub(super) filesystem: Option<String>,
}

/// Asks the system about the file. Fails if the file or its disk cannot be examined.
pub(super) fn measure(file: &Path, is_running: bool) -> std::io::Result<Facts> {
    let size = |path: &Path| fs::metadata(path).map(|metadata| metadata.len());
    let log = PathBuf::from(format!("{}-wal", file.display()));
    // The log exists only while a program has the file open.
    let used_bytes = size(file)? + size(&log).unwrap_or(0);
    let file = file.canonicalize()?;
    let disk = rustix::fs::statvfs(&file)?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    Ok(Facts {
        has_log: has_log(&file)?,
        is_running,
        is_writable: rustix::fs::access(&file, rustix::fs::Access::WRITE_OK).is_ok(),
        used_bytes,
        free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
        filesystem: filesystem(&mounts, &file),
    })
}

/// Whether the header of the file says that changes go to a write-ahead log (<https://sqlite.org/fileformat.html>).
fn has_log(file: &Path) -> std::io::Result<bool> {
    let mut header = [0; 20];
    match fs::File::open(file)?.read_exact(&mut header) {
        Ok(()) => Ok(header[18..] == [2, 2]),
        // An empty file is an empty database, which has no mode yet.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(true),
        Err(error) => Err(error),
    }
}

/// Finds the type of the file system of a file in `/proc/self/mountinfo`. The last of the longest matching mount points counts,
/// because it hides the others.
fn filesystem(mounts: &str, file: &Path) -> Option<String> {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        // Spaces in a path are written as an octal number.
        let point = PathBuf::from(before.split(' ').nth(4)?.replace("\\040", " "));
        let kind = after.split(' ').next()?.to_owned();
        file.starts_with(&point).then(|| (point.components().count(), kind))
    };
    mounts.lines().filter_map(mount).max_by_key(|(depth, _)| *depth).map(|(_, kind)| kind)
}

/// Decides about the file.
pub(super) fn decide(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(journal(facts));
    findings.extend(space(facts));
    if !facts.is_writable {
        findings.push(read_only("this user may not write to the file"));
    }
    if let Some(kind) = facts.filesystem.as_deref().filter(|kind| NETWORK.contains(kind)) {
        findings.push(Finding::problem(
            Code::SqliteNetworkFilesystem,
            "`database.url`",
            format!("the file is on the network file system {kind}"),
            "Move the file to a disk of this machine, or use PostgreSQL: locks over a network can fail, and that destroys the database.",
        ));
    }
    findings
}

fn journal(facts: &Facts) -> Option<Finding> {
    if facts.has_log {
        return None;
    }
    let measured = "the journal mode of the file is not `wal`";
    Some(if facts.is_running {
        let advice = "Move the file to a file system that can share memory between programs, and restart the server: without a \
            write-ahead log (`wal`), reads and writes wait for each other.";
        Finding::problem(Code::SqliteJournalMode, "`database.url`", measured, advice)
    } else {
        let advice = "Start `windfall serve`, which sets the mode to `wal`. The file is probably a backup that no server has used yet.";
        Finding::advice(Code::SqliteJournalMode, "`database.url`", measured, advice)
    })
}

fn space(facts: &Facts) -> Option<Finding> {
    let measured = format!(
        "{} are free; the database and its log have {}, and the log may grow to {}",
        bytes(facts.free_bytes),
        bytes(facts.used_bytes),
        bytes(SQLITE_LOG_BYTES)
    );
    if facts.free_bytes < SQLITE_LOG_BYTES {
        let advice = "Make room on the disk: when it is full, nothing is recorded.";
        Some(Finding::problem(Code::SqliteDiskSpace, "disk", measured, advice))
    } else if facts.free_bytes < facts.used_bytes {
        let advice =
            "Make room on the disk: a backup or a migration that rewrites a table needs as much as the database has.";
        Some(Finding::advice(Code::SqliteDiskSpace, "disk", measured, advice))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    fn good() -> Facts {
        Facts {
            has_log: true,
            is_running: true,
            is_writable: true,
            used_bytes: 2 * SQLITE_LOG_BYTES,
            free_bytes: 2 * SQLITE_LOG_BYTES,
            filesystem: Some("ext4".to_owned()),
        }
    }

    #[test]
    fn each_fact_is_told() {
        use Severity::{Advice, Problem};
        let decided = |facts: &Facts| -> Vec<(Code, Severity)> {
            decide(facts).into_iter().map(|finding| (finding.code, finding.severity)).collect()
        };
        assert_eq!(decided(&good()), []);
        for (facts, found) in [
            (Facts { has_log: false, ..good() }, (Code::SqliteJournalMode, Problem)),
            (Facts { has_log: false, is_running: false, ..good() }, (Code::SqliteJournalMode, Advice)),
            (Facts { free_bytes: 2 * SQLITE_LOG_BYTES - 1, ..good() }, (Code::SqliteDiskSpace, Advice)),
            (Facts { free_bytes: SQLITE_LOG_BYTES - 1, ..good() }, (Code::SqliteDiskSpace, Problem)),
            (Facts { is_writable: false, ..good() }, (Code::DatabaseReadOnly, Problem)),
            (Facts { filesystem: Some("nfs4".to_owned()), ..good() }, (Code::SqliteNetworkFilesystem, Problem)),
        ] {
            assert_eq!(decided(&facts), [found], "{facts:?}");
        }
        assert_eq!(decided(&Facts { filesystem: None, ..good() }), []);
    }

    #[test]
    fn the_innermost_mount_has_the_file() {
        let mounts = "22 27 0:21 / /proc rw - proc proc rw\n\
            1 0 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
            2 1 0:40 / /shop rw - nfs4 host:/shop rw\n\
            3 1 0:41 / /my\\040shop rw - xfs /dev/vdb rw\n\
            4 2 0:42 / /shop rw - tmpfs tmpfs rw\n";
        let of = |file| filesystem(mounts, Path::new(file));
        assert_eq!(of("/other/windfall.db").as_deref(), Some("ext4"));
        assert_eq!(of("/my shop/windfall.db").as_deref(), Some("xfs"));
        assert_eq!(of("/shopping/windfall.db").as_deref(), Some("ext4"));
        assert_eq!(of("/shop/windfall.db").as_deref(), Some("tmpfs"), "the later mount hides the earlier one");
        assert_eq!(filesystem("", Path::new("/a")), None);
    }
}
