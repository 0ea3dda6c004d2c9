//! `json.dumps` as chat templates call it: the filter `tojson` that engines give them.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};
use std::fmt::Write;

/// The filter `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
#[expect(clippy::needless_pass_by_value, reason = "as filters are called")]
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let separators: Option<Vec<String>> = options.get("separators")?;
    let indent: Option<usize> = options.get("indent")?;
    let (between, after_name) = match separators.as_deref() {
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
        Some([between, after_name]) => (between.clone(), after_name.clone()),
        Some(other) => {
            let said = format!("tojson: {} separators; give two", other.len());
            return Err(Error::new(ErrorKind::InvalidOperation, said));
        }
    };
    let mut writer = Writer {
        out: String::new(),
        between,
        after_name,
        indent,
        depth: 0,
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    writer.value(value)?;
    Ok(Value::from(writer.out))
}

/// A float as Python prints it: the fewest digits that give it back, with an exponent below 1e-4 and from
/// 1e16 on.
pub(super) fn float(value: f64) -> String {
    if !value.is_finite() {
        let said = if value.is_nan() { "NaN" } else { "Infinity" };
        return if value == f64::NEG_INFINITY { format!("-{said}") } else { said.to_owned() };
    }
    if value != 0.0 && !(1e-4..1e16).contains(&value.abs()) {
        let shortest = format!("{value:e}");
        let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{value:?}")
}

struct Writer {
    out: String,
    between: String,
    after_name: String,
    indent: Option<usize>,
    depth: usize,
    ascii: bool,
    sorted: bool,
}

impl Writer {
    fn value(&mut self, value: &Value) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => {
                _ = write!(self.out, "{value}");
            }
            ValueKind::Number => self.out.push_str(&float(f64::try_from(value.clone())?)),
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            ValueKind::Seq => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.nested('[', ']', &items, Self::value)?;
            }
            ValueKind::Map => {
                let mut names: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    names.sort();
                }
                self.nested('{', '}', &names, |writer, name| {
                    let Some(text) = name.as_str() else { return Err(unknown(name)) };
                    writer.text(text);
                    let after_name = std::mem::take(&mut writer.after_name);
                    writer.out.push_str(&after_name);
                    writer.after_name = after_name;
                    writer.value(&value.get_item(name)?)
                })?;
            }
            _ => return Err(unknown(value)),
        }
        Ok(())
    }

    fn nested(
        &mut self,
        open: char,
        close: char,
        items: &[Value],
        mut write: impl FnMut(&mut Self, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        self.depth += 1;
        for (position, item) in items.iter().enumerate() {
            if position > 0 {
                self.out.push_str(&self.between);
            }
            self.new_line();
            write(self, item)?;
        }
        self.depth -= 1;
        if !items.is_empty() {
            self.new_line();
        }
        self.out.push(close);
        Ok(())
    }

    fn new_line(&mut self) {
        if let Some(indent) = self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent * self.depth));
        }
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for letter in text.chars() {
            match letter {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                '\0'..='\u{1f}' => self.escape(letter as u16),
                '\u{7f}'.. if self.ascii && letter != '\u{7f}' => {
                    let mut units = [0; 2];
                    for unit in letter.encode_utf16(&mut units) {
                        self.escape(*unit);
                    }
                }
                _ => self.out.push(letter),
            }
        }
        self.out.push('"');
    }

    fn escape(&mut self, unit: u16) {
        _ = write!(self.out, "\\u{unit:04x}");
    }
}

fn unknown(value: &Value) -> Error {
    let said = format!("tojson: {} is not JSON", value.kind());
    Error::new(ErrorKind::InvalidOperation, said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_printed_as_python_does() {
        for (value, printed) in [
            (1.0, "1.0"),
            (0.0, "0.0"),
            (-2.5, "-2.5"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (-1.25e-7, "-1.25e-07"),
            (0.1, "0.1"),
        ] {
            assert_eq!(float(value), printed);
        }
    }
}
