//! A program that runs until it is dropped, with a temporary directory of its own. It is not left behind, however the tests end:
//! beside it runs a keeper, as beside [`Postgres`](super::postgres::Postgres).

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The script of the keeper. `$1` is the directory. Each line of the input is the process id of the program, or empty when it has
/// ended.
const KEEPER: &str = r#"
program=
while read -r line; do program=$line; done
[ -z "$program" ] || kill -KILL "$program"
rm -rf "$1"
"#;

pub(crate) struct Daemon {
    directory: PathBuf,
    keeper: Child,
    child: Child,
}

impl Daemon {
    /// Starts a program that listens on this port, and waits until it does. Returns `None` if it ends instead, for example
    /// because the port is taken. `directory` is removed at the end.
    pub(crate) fn start(directory: PathBuf, command: &mut Command, port: u16) -> Option<Self> {
        let log = || {
            let log = fs::File::options().create(true).append(true).open(directory.join("log"));
            Stdio::from(log.expect("a directory of this test"))
        };
        command.current_dir(&directory).stdin(Stdio::null()).stdout(log()).stderr(log()).process_group(0);
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("a shell");
        let child = command.spawn().expect("these tests need this program; scripts/test installs it");
        let mut daemon = Self { directory, keeper, child };
        daemon.keep(&daemon.child.id().to_string());
        for _ in 0..6000 {
            if daemon.child.try_wait().expect("a child of this process").is_some() {
                daemon.keep("");
                return None;
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Some(daemon);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{:?} does not listen after a minute:\n{}", daemon.directory, daemon.log());
    }

    fn keep(&self, line: &str) {
        let mut input = self.keeper.stdin.as_ref().expect("the input of the keeper is open");
        writeln!(input, "{line}").expect("the keeper reads its input");
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The program is waited for after the keeper, so its process id cannot belong to another process before.
        drop(self.keeper.stdin.take());
        self.keeper.wait().expect("a child of this process");
        self.child.wait().expect("a child of this process");
    }
}
