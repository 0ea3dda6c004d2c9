//! What the command line says.

use crate::parts::Part;
use crate::tree3::Shape;
use std::path::PathBuf;

const USAGE: &str = "\
usage: llmd-peers [--only KEY]... [--quick] [--runs N] [--trace FILE] [--growth FILE]
  --only KEY     only the part that reports this key (or the keys that begin with it)
  --quick        small and few: whether it works, not how fast
  --runs N       measured runs of each contender (default 9)
  --trace FILE   replays a Mooncake trace too (JSON lines with input_length and hash_ids)
  --growth FILE  writes how costs grow, as CSV";

pub struct Settings {
    pub only: Vec<String>,
    pub quick: bool,
    pub runs: usize,
    pub trace: Option<PathBuf>,
    pub growth: Option<PathBuf>,
}

impl Settings {
    pub fn from_args(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut only, mut quick, mut runs) = (Vec::new(), false, None);
        let (mut trace, mut growth) = (None, None);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} wants a value\n{USAGE}"));
            match arg.as_str() {
                "--only" => only.push(value()?),
                "--quick" => quick = true,
                "--runs" => {
                    let text = value()?;
                    let number = text.parse().ok().filter(|&runs| runs > 0);
                    runs = Some(number.ok_or(format!("--runs wants a number, not {text}"))?);
                }
                "--trace" => trace = Some(PathBuf::from(value()?)),
                "--growth" => growth = Some(PathBuf::from(value()?)),
                _ => return Err(format!("what is {arg}?\n{USAGE}")),
            }
        }
        let runs = runs.unwrap_or(if quick { 3 } else { 9 });
        Ok(Self { only, quick, runs, trace, growth })
    }

    pub fn wants(&self, part: &Part) -> bool {
        let named = |only: &String| {
            part.names.iter().any(|name| only.starts_with(name) || name.starts_with(&**only))
        };
        if self.only.is_empty() { part.by_default } else { self.only.iter().any(named) }
    }

    /// The shape, or a small one like it.
    pub fn sized(&self, shape: Shape) -> Shape {
        let sequences = if self.quick { shape.sequences / 20 } else { shape.sequences };
        Shape { sequences, ..shape }
    }

    /// So many, or a few.
    pub fn count(&self, count: usize) -> usize {
        if self.quick { count.div_ceil(20) } else { count }
    }
}
