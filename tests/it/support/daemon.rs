//! A program that runs until it is dropped, with a temporary directory of its own. It is not left behind, however the tests end:
//! beside it runs a [`Keeper`].

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::keeper::{KILL, Keeper};

pub(crate) struct Daemon {
    directory: PathBuf,
    keeper: Keeper,
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
        let keeper = Keeper::start(KILL, &directory);
        let child = command.spawn().expect("these tests need this program; scripts/test installs it");
        let mut daemon = Self { directory, keeper, child };
        daemon.keeper.keep(Some(daemon.child.id()));
        for _ in 0..6000 {
            if daemon.child.try_wait().expect("a child of this process").is_some() {
                daemon.keeper.keep(None);
                return None;
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Some(daemon);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{:?} does not listen after a minute:\n{}", daemon.directory, daemon.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The program is waited for after the keeper, so its process id cannot belong to another process before.
        self.keeper.release();
        self.keeper.wait();
        self.child.wait().expect("a child of this process");
    }
}
