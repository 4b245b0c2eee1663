//! A certification authority for one test, and the certificates that it signs. The program `openssl` makes them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The settings of all certificates. Those of the machine are not used, because they would add extensions.
const SETTINGS: &str = "[req]\ndistinguished_name = name\n[name]\n";

/// An authority with its certificates, which are removed with it.
pub(crate) struct Authority {
    directory: tempfile::TempDir,
}

/// The files of a certificate and its private key, in PEM.
pub(crate) struct Certificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let authority = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        fs::write(authority.path("settings"), SETTINGS).expect("a directory of this test");
        authority.make("ca", &["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"], &[]);
        authority
    }

    /// The certificate of the authority itself.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.path("ca.crt")
    }

    /// Signs a certificate for these names, for example `IP:127.0.0.1`. It is for servers and clients.
    pub(crate) fn sign(&self, names: &str) -> Certificate {
        let file = names.replace([':', ',', '.'], "-");
        let (ca, key) = (self.path("ca.crt"), self.path("ca.key"));
        let signer = ["-CA".as_ref(), ca.as_os_str(), "-CAkey".as_ref(), key.as_os_str()];
        let extensions = ["basicConstraints=critical,CA:FALSE", &format!("subjectAltName={names}")];
        self.make(&file, &extensions, &signer.map(|word| word.to_str().expect("a path in UTF-8")));
        Certificate { certificate: self.path(&format!("{file}.crt")), key: self.path(&format!("{file}.key")) }
    }

    fn make(&self, file: &str, extensions: &[&str], signer: &[&str]) {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
        // Authorities with one name would be taken for one another.
        openssl.args(["-subj", &format!("/CN={file}-{:016x}", rand::random::<u64>())]);
        openssl.arg("-config").arg(self.path("settings")).args(signer);
        openssl.arg("-keyout").arg(self.path(&format!("{file}.key")));
        openssl.arg("-out").arg(self.path(&format!("{file}.crt")));
        for extension in extensions {
            openssl.args(["-addext", extension]);
        }
        let made = openssl.stdin(Stdio::null()).output().expect("these tests need openssl; scripts/test installs it");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }
}
