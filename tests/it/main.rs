//! Integration tests.

mod oracle;
