//! Changes to a body's fields, in its bytes: everything else of it stays as the client wrote it.

use bytes::Bytes;
use std::ops::Range;

/// A field of the outermost object that gets a value.
pub(super) struct Edit<'a> {
    pub(super) field: &'a str,
    pub(super) value: &'a str,
    /// Where the value stands that it has; it is added where there is none.
    pub(super) at: Option<Range<usize>>,
}

/// The body of a JSON object with other text for some fields.
pub(super) fn edited(body: &Bytes, edits: &mut [Edit<'_>]) -> Bytes {
    let more: usize = edits.iter().map(|it| it.field.len() + it.value.len() + 16).sum();
    let mut out = Vec::with_capacity(body.len() + more);
    edits.sort_by_key(|it| it.at.as_ref().map_or(usize::MAX, |at| at.start));
    let mut from = 0;
    for edit in edits.iter() {
        let Some(at) = &edit.at else { continue };
        out.extend_from_slice(&body[from..at.start]);
        out.extend_from_slice(quoted(edit.value).as_bytes());
        from = at.end;
    }
    let end = memchr::memrchr(b'}', body).unwrap_or(body.len()).max(from);
    out.extend_from_slice(&body[from..end]);
    for edit in edits.iter().filter(|it| it.at.is_none()) {
        let is_first = out.trim_ascii_end().ends_with(b"{");
        out.extend_from_slice(if is_first { b"" } else { b"," });
        out.extend_from_slice(quoted(edit.field).as_bytes());
        out.push(b':');
        out.extend_from_slice(quoted(edit.value).as_bytes());
    }
    out.extend_from_slice(&body[end..]);
    out.into()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request_body::RequestBody;
    use proptest::prelude::*;
    use serde_json::Value;

    fn with(body: &str, model: &str, salt: &str) -> String {
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        let read = RequestBody::read(&bytes, bytes.len());
        let edits = &mut [
            Edit { field: "cache_salt", value: salt, at: read.cache_salt_at },
            Edit { field: "model", value: model, at: read.model_at },
        ];
        String::from_utf8(edited(&bytes, edits).to_vec()).unwrap()
    }

    #[test]
    fn a_field_is_replaced_where_it_stands_or_added_at_the_end() {
        let body = "{ \"model\" : \"a\", \"prompt\": \"}\" } ";
        assert_eq!(
            with(body, "b\"", "s"),
            "{ \"model\" : \"b\\\"\", \"prompt\": \"}\" ,\"cache_salt\":\"s\"} "
        );
        assert_eq!(with("{}", "b", "s"), "{\"cache_salt\":\"s\",\"model\":\"b\"}");
    }

    proptest! {
        /// Of a field that stands there twice the last counts, which is the one that is replaced.
        #[test]
        fn other_fields_stay_as_they_were(
            fields in proptest::collection::vec(("[a-z_]{1,9}|model|cache_salt", ".{0,9}"), 0..6),
            model in ".{0,9}",
            salt in ".{0,9}",
        ) {
            let parts: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{}: {}", quoted(name), quoted(value)))
                .collect();
            let body = format!("{{{}}}", parts.join(" ,\n"));
            let mut wanted: Value = serde_json::from_str(&body).unwrap();
            wanted["model"] = Value::from(model.as_str());
            wanted["cache_salt"] = Value::from(salt.as_str());
            let read: Value = serde_json::from_str(&with(&body, &model, &salt)).unwrap();
            prop_assert_eq!(read, wanted);
        }
    }
}
