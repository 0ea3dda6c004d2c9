//! Other processes: this test's own program again, in a role that an environment variable names.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const ROLE: &str = "LLMD_CUDA_ROLE";
/// Before what a role says, so that the test harness' own lines are passed over.
const SAID: &str = "said ";

/// A process in a role. It is killed when this goes.
pub struct Process {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Process {
    pub fn start(role: &str, environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child::plays_its_role", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, to, from: BufReader::new(from) }
    }

    /// What it says next.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.from.read_line(&mut line).unwrap() > 0, "the other process is gone");
            if let Some(at) = line.find(SAID) {
                return line[at + SAID.len()..].trim_end().to_owned();
            }
        }
    }

    pub fn tell(&mut self, what: &str) {
        writeln!(self.to, "{what}").unwrap();
    }

    /// Tells it something, and hears the answer.
    pub fn ask(&mut self, what: &str) -> String {
        self.tell(what);
        self.hear()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end; the signal that killed it, if one did.
    pub fn signal(mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        self.child.wait().unwrap().signal()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn say(what: &str) {
    println!("{SAID}{what}");
}

/// What the process that started this one says, until it goes.
pub fn heard() -> impl Iterator<Item = String> {
    std::io::stdin().lines().map_while(Result::ok)
}

#[test]
fn plays_its_role() {
    match std::env::var(ROLE).as_deref() {
        Ok("owner") => crate::peers::owner(),
        Ok("reader") => crate::peers::reader(),
        Ok("prober") => crate::absent::prober(),
        Ok("trespasser") => crate::absent::trespasser(),
        Ok(other) => panic!("no role {other}"),
        // Among the tests.
        Err(_) => {}
    }
}
