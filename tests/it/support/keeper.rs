//! The keeper of a server: a shell that waits for the end of its standard input. The input ends when the keeper is released, and
//! also when the whole test process ends, even if it is killed. Then the keeper stops the server and removes its directory, so no
//! server is left behind. (The parent-death signal of Linux would not do: it is sent when the *thread* ends that started the child,
//! and tests are threads.)

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Kills the server. In a script, `$1` is the directory. Each line of the input is the process id of the server, or empty while there
/// is none.
pub(crate) const KILL: &str = r#"
server=
while read -r line; do server=$line; done
[ -z "$server" ] || kill -KILL "$server"
rm -rf "$1"
"#;

pub(crate) struct Keeper(Child);

impl Keeper {
    /// Starts a keeper with this script.
    pub(crate) fn start(script: &str, directory: &Path) -> Self {
        // In a process group of its own, because Ctrl-C must end the tests, not the keeper.
        let keeper = Command::new("sh")
            .args(["-c", script, "keeper"])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        Self(keeper.expect("a shell"))
    }

    /// Tells the keeper which server to stop at the end.
    pub(crate) fn keep(&self, server: Option<u32>) {
        let line = server.map_or_else(String::new, |pid| pid.to_string());
        let mut input = self.0.stdin.as_ref().expect("the input of the keeper is open");
        writeln!(input, "{line}").expect("the keeper reads its input");
    }

    /// Makes the keeper stop the server and remove the directory.
    pub(crate) fn release(&mut self) {
        drop(self.0.stdin.take());
    }

    /// Waits until a released keeper has ended.
    pub(crate) fn wait(&mut self) {
        self.0.wait().expect("a child of this process");
    }
}
