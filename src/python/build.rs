//! Takes the docstrings out of the type stub, so that they are written once: `stub_doc!("A.b")`
//! is the docstring of `b` in `class A` of a file in `python/llmd_sched/_core`.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

const STUB: &str = "../../python/llmd_sched/_core";
/// Whose docstring is the module's.
const MODULE: &str = "__init__.pyi";
const QUOTES: &str = "\"\"\"";

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed={STUB}");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    for file in fs::read_dir(Path::new(STUB))? {
        let path = file?.path();
        let own = if path.ends_with(MODULE) { "module" } else { "file" };
        for (name, docstring) in docstrings(&fs::read_to_string(path)?, own) {
            fs::write(out.join(format!("{name}.txt")), docstring)?;
        }
    }
    Ok(())
}

/// Every `(qualified name, docstring)` of a file of the stub; the file's own has the name `own`.
fn docstrings(stub: &str, own: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut class = String::new();
    let mut owner = Some(own.to_owned());
    let mut lines = stub.lines();
    while let Some(line) = lines.next() {
        let code = line.trim_start();
        let indented = code.len() < line.len();
        if let Some(name) = declared(code, "class ") {
            class = name.to_owned();
            owner = Some(class.clone());
        } else if let Some(name) = declared(code, "def ") {
            owner = Some(if indented { format!("{class}.{name}") } else { name.to_owned() });
        } else if let Some(first) = code.strip_prefix(QUOTES)
            && let Some(name) = owner.take()
        {
            found.push((name, docstring(first, &mut lines)));
        }
    }
    found
}

fn declared<'a>(code: &'a str, keyword: &str) -> Option<&'a str> {
    code.strip_prefix(keyword)?.split(['(', ':']).next()
}

/// The rest of a docstring that began with `first`, without the indentation of the code.
fn docstring<'a>(first: &str, lines: &mut impl Iterator<Item = &'a str>) -> String {
    if let Some(only) = first.strip_suffix(QUOTES) {
        return only.to_owned();
    }
    let mut rest = Vec::new();
    for line in lines {
        if let Some(last) = line.trim_end().strip_suffix(QUOTES) {
            rest.push(last);
            break;
        }
        rest.push(line);
    }
    let indentation = |line: &&str| line.len() - line.trim_start().len();
    let margin =
        rest.iter().filter(|line| !line.trim().is_empty()).map(indentation).min().unwrap_or(0);
    let mut text = first.to_owned();
    for line in rest {
        text.push('\n');
        text.push_str(line.get(margin..).unwrap_or_default());
    }
    text.trim_end().to_owned()
}
