use super::{BodyPrompt, RequestBody};
use proptest::prelude::*;
use serde_json::{Value, json};

fn read(body: &Value) -> RequestBody {
    let bytes = serde_json::to_vec(body).unwrap();
    RequestBody::read(&bytes, bytes.len())
}

fn text(text: &str) -> Option<BodyPrompt> {
    Some(BodyPrompt::Text(text.to_owned()))
}

fn tokens(ids: &[u32]) -> Option<BodyPrompt> {
    Some(BodyPrompt::Tokens(ids.to_vec()))
}

#[test]
fn each_form_of_a_prompt_is_found() {
    for (body, prompt) in [
        (json!({"prompt": "hi"}), text("hi")),
        (json!({"prompt": [1, 2, 3]}), tokens(&[1, 2, 3])),
        (json!({"prompt": ["first", "second"]}), text("first")),
        (json!({"prompt": [[4, 5], [6]]}), tokens(&[4, 5])),
        (json!({"prompt": ""}), None),
        (json!({"prompt": []}), None),
        (json!({"prompt": null}), None),
        (json!({"prompt": 7}), None),
        (json!({"prompt": {"a": [1]}}), None),
        (json!({"input": "respond"}), text("respond")),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]}),
            text("user\u{1e}hi"),
        ),
        (json!({"messages": [{"role": "user", "content": "hi"}]}), text("user\u{1e}hi")),
        (
            json!({"messages": [
                {"content": "after", "role": "system"},
                {"role": "user", "content": ["a", {"text": "b"}, {"url": "c"}], "name": {"x": [1]}},
                {"role": "assistant", "content": null, "tool_calls": [{"id": 1}]},
                {"content": "nobody"},
            ]}),
            text(
                "system\u{1e}after\u{1e}user\u{1e}a\u{1e}b\u{1e}{\"url\":\"c\"}\u{1e}assistant\u{1e}\
                 [{\"id\":1}]\u{1e}\u{1e}nobody",
            ),
        ),
    ] {
        let found = read(&body);
        assert_eq!((found.prompt, found.is_whole), (prompt, true), "{body}");
    }
}

#[test]
fn the_prompt_that_counts_most_wins_wherever_it_stands() {
    for body in [
        r#"{"prompt": "text", "prompt_token_ids": [1, 2], "messages": []}"#,
        r#"{"prompt_token_ids": [1, 2], "messages": [{"role": "user"}], "prompt": "text"}"#,
    ] {
        assert_eq!(RequestBody::read(body.as_bytes(), body.len()).prompt, tokens(&[1, 2]));
    }
    let chat = read(&json!({"input": "no", "prompt": "neither", "messages": [{"role": "user"}]}));
    assert_eq!(chat.prompt, text("user"));
}

#[test]
fn fields_besides_the_prompt_are_read() {
    let value = json!({
        "stop": ["\"}", "]"], "model": "base:adapter", "max_tokens": 7, "max_completion_tokens": 8,
        "cache_salt": "s\u{e9}", "priority": -3, "n": 1.5, "stream": true, "prompt": "p",
    });
    let body = read(&value);
    let (text_of, at) = (value.to_string(), |it: Option<std::ops::Range<usize>>| it.unwrap());
    assert_eq!(&text_of[at(body.model_at)], "\"base:adapter\"");
    assert_eq!(&text_of[at(body.cache_salt_at)], "\"s\u{e9}\"");
    assert_eq!(body.model.as_deref(), Some("base:adapter"));
    assert_eq!(body.max_output_tokens, Some(8));
    assert_eq!(body.cache_salt.as_deref(), Some("s\u{e9}"));
    assert_eq!((body.priority, body.prompt), (Some(-3), text("p")));
    let nonsense = read(&json!({"max_tokens": "8", "priority": 1.5, "model": [], "prompt": "p"}));
    // Whoever changes it has to know where it stands, whatever it is.
    let nonsense = RequestBody { model_at: nonsense.model_at.map(|_| 0..0), ..nonsense };
    assert_eq!(
        nonsense,
        RequestBody {
            prompt: text("p"),
            is_whole: true,
            model_at: Some(0..0),
            ..RequestBody::default()
        }
    );
}

#[test]
fn a_field_is_the_same_however_its_name_is_written() {
    let body = r#"{"model": "a", "prompt": "p", "\u006dodel": "b", "cache\u005fsalt": "s"}"#;
    let read = RequestBody::read(body.as_bytes(), body.len());
    assert_eq!((read.model.as_deref(), read.cache_salt.as_deref()), (Some("b"), Some("s")));
    assert_eq!(&body[read.model_at.unwrap()], "\"b\"");
}

#[test]
fn what_is_no_json_says_nothing() {
    for body in ["", "[]", "nonsense", "{\"prompt\"", "\u{feff}{}", "{]", "{\"a\" 1}"] {
        let read = RequestBody::read(body.as_bytes(), body.len());
        assert_eq!((read.prompt, read.is_whole), (None, false), "{body}");
    }
    let late = RequestBody::read(b"{\"prompt\": \"early\", oops", 24);
    assert_eq!((late.prompt, late.is_whole), (text("early"), false));
}

#[test]
fn a_body_that_is_cut_off_begins_as_the_whole_one_does() {
    let body =
        r#"{"messages": [{"role": "user", "content": "caf\u00e9 \ud83d\ude00 ☕ and more"}]}"#;
    let Some(BodyPrompt::Text(whole)) = RequestBody::read(body.as_bytes(), body.len()).prompt
    else {
        panic!()
    };
    assert_eq!(whole, "user\u{1e}caf\u{e9} \u{1f600} \u{2615} and more");
    for cut in 0..body.len() {
        let read = RequestBody::read(&body.as_bytes()[..cut], body.len());
        assert!(!read.is_whole);
        if let Some(BodyPrompt::Text(text)) = &read.prompt {
            // Half of a surrogate pair is shown as one that is none.
            let text = text.trim_end_matches('\u{fffd}');
            assert!(whole.starts_with(text), "{cut}: {text:?}");
        }
    }
}

#[test]
fn the_length_of_what_was_cut_off_is_estimated() {
    let body = json!({"prompt": "x".repeat(4_000)}).to_string();
    let read = RequestBody::read(&body.as_bytes()[..1_000], body.len());
    assert!((990..=1_010).contains(&read.prompt_tokens()), "{}", read.prompt_tokens());
    let ids: Vec<u32> = (10_000..11_000).collect();
    let body = json!({"prompt": ids}).to_string();
    let read = RequestBody::read(&body.as_bytes()[..3_000], body.len());
    assert!((950..=1_050).contains(&read.prompt_tokens()), "{}", read.prompt_tokens());
    assert_eq!(RequestBody::read(b"", 4_000).prompt_tokens(), 1_000);
}

#[test]
fn deep_nesting_is_passed_over() {
    let depth = 200_000;
    let body = format!("{{\"x\": {}{}, \"prompt\": \"p\"}}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(RequestBody::read(body.as_bytes(), body.len()).prompt, text("p"));
}

/// Any JSON, with the names of fields that are read among those of others.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}|[\"\\\\\n\t]{0,4}".prop_map(Value::from),
        proptest::collection::vec(any::<u32>(), 0..6).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 5, |inner| {
        let name =
            prop_oneof!["(role|content|text|tool_calls|messages|prompt|input|model)", "\\PC{0,6}",];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map(name, inner, 0..5)
                .prop_map(|map| map.into_iter().collect::<Value>()),
        ]
    })
}

/// What a parser makes of a field.
fn oracle(body: &Value) -> Option<BodyPrompt> {
    match body.get("prompt")? {
        Value::String(it) if !it.is_empty() => text(it),
        _ => None,
    }
}

proptest! {
    #[test]
    fn it_reads_what_a_parser_reads(
        before in any_json(), prompt in "(\\PC|\n|\"|\\\\){0,40}", after in any_json(), model in "\\PC{1,8}",
        pretty in any::<bool>(),
    ) {
        let body = json!({"a": before, "prompt": prompt, "z": after, "model": model});
        let bytes = if pretty { serde_json::to_vec_pretty(&body) } else { serde_json::to_vec(&body) };
        let bytes = bytes.unwrap();
        let read = RequestBody::read(&bytes, bytes.len());
        prop_assert!(read.is_whole);
        prop_assert_eq!(read.prompt, oracle(&body));
        prop_assert_eq!(read.model, Some(model));
    }

    #[test]
    fn any_json_is_read_to_its_end(mut body in any_json(), extra in any_json()) {
        if !body.is_object() {
            body = json!({"messages": body, "prompt": extra});
        }
        // Where a field that holds something else than it should is passed over.
        let inside = json!({"x": body.clone()});
        prop_assert!(read(&inside).is_whole);
        let bytes = serde_json::to_vec(&body).unwrap();
        for cut in 0..bytes.len() {
            let part = RequestBody::read(&bytes[..cut], bytes.len());
            prop_assert!(!part.is_whole);
        }
    }

    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let read = RequestBody::read(&bytes, bytes.len());
        prop_assert!(u64::from(read.prompt_tokens()) <= bytes.len() as u64 + 1);
    }
}
