//! The Prometheus text exposition format, read as far as metrics need.
//!
//! Tolerant: a line that cannot be read is counted and skipped, comments and types are ignored,
//! timestamps and exemplars are dropped. Format: the text format 0.0.4 of the Prometheus
//! documentation; OpenMetrics differs in what is ignored here.

/// Most labels that one sample may have; the rest of the line is skipped.
const MAX_LABELS: usize = 64;

/// A sample of a page.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<'a> {
    /// Name of the series.
    pub name: &'a str,
    /// Its labels in order of appearance; values are as written, escapes kept.
    pub labels: Vec<(&'a str, &'a str)>,
    /// Its value.
    pub value: f64,
}

impl<'a> Sample<'a> {
    /// A label's value, escapes kept.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&'a str> {
        self.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| *value)
    }
}

/// The samples of a page for which `wanted(name)`; those it does not want cost no more than the
/// scan for the end of their line. `unreadable` counts lines that make no sense.
pub fn samples<'a>(
    page: &'a str,
    wanted: impl Fn(&str) -> bool,
    unreadable: &mut u64,
) -> Vec<Sample<'a>> {
    let mut found = Vec::new();
    for line in page.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let end = line.find(['{', ' ', '\t']).unwrap_or(line.len());
        if !wanted(&line[..end]) {
            continue;
        }
        match sample(line, end) {
            Some(sample) => found.push(sample),
            None => *unreadable += 1,
        }
    }
    found
}

fn sample(line: &str, name_end: usize) -> Option<Sample<'_>> {
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = number(rest.split_ascii_whitespace().next()?)?;
    Some(Sample { name, labels, value })
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(Vec<(&str, &str)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let equals = rest.find('=')?;
        let (name, after) = rest.split_at(equals);
        let quoted = after[1..].trim_start().strip_prefix('"')?;
        let close = closing_quote(quoted)?;
        if labels.len() < MAX_LABELS {
            labels.push((name.trim(), &quoted[..close]));
        }
        rest = &quoted[close + 1..];
    }
}

/// Position of the quote that no backslash escapes.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(page: &str) -> (Vec<Sample<'_>>, u64) {
        let mut unreadable = 0;
        let found = samples(page, |_| true, &mut unreadable);
        (found, unreadable)
    }

    #[test]
    fn samples_with_and_without_labels_are_read() {
        let page =
            "# TYPE a gauge\na 1\n\nb{x=\"1\", y=\"a\\\"b}\"} 2.5e3 1700000000\nc{} +Inf\r\n";
        let (found, unreadable) = all(page);
        assert_eq!(unreadable, 0);
        let read: Vec<_> = found.iter().map(|s| (s.name, s.labels.clone(), s.value)).collect();
        assert_eq!(
            read,
            [
                ("a", vec![], 1.0),
                ("b", vec![("x", "1"), ("y", "a\\\"b}")], 2500.0),
                ("c", vec![], f64::INFINITY),
            ]
        );
    }

    #[test]
    fn lines_that_make_no_sense_are_counted_and_skipped() {
        let (found, unreadable) = all("a{x=\"1\" 2\nb{x=1} 2\nc\nd word\n{ } 1\nok 3\n");
        assert_eq!(found.iter().map(|s| s.name).collect::<Vec<_>>(), ["", "ok"]);
        assert_eq!(unreadable, 4);
    }

    #[test]
    fn unwanted_series_are_not_parsed() {
        let mut unreadable = 0;
        let found = samples("bad{{{\nwanted 1\n", |name| name == "wanted", &mut unreadable);
        assert_eq!((found.len(), unreadable), (1, 0));
    }

    proptest! {
        #[test]
        fn no_page_breaks_it(page in "[a-c{}=\",\\\\ \n0-9.]{0,200}") {
            all(&page);
        }
    }
}
