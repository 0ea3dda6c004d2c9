//! The libraries of `tests/fakes`, compiled where they are not.

use std::path::PathBuf;
use std::process::Command;

/// The folder that they are in.
pub fn fakes() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("fakes");
    let built = Command::new(root.join("tests/fakes/build.sh")).arg(&out).status().unwrap();
    assert!(built.success(), "tests/fakes/build.sh: {built}");
    out
}
