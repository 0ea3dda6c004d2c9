use super::tokenizers_of::{Made, added, families, tokenizer_json};
use crate::tokenize::{LoadError, Model, NotExact};
use serde_json::{Value, json};

const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}\n<s>{{ message.role }}: {{ message['content'] }}{% endfor %}\n";

fn json_of_one() -> Value {
    let tokens = [added("<s>", &[]), added("</s>", &[])];
    tokenizer_json(&families()["llama3"], &tokens, &Value::Null)
}

fn chat(content: &Value) -> Vec<u8> {
    json!({"messages": [{"role": "user", "content": content}]}).to_string().into_bytes()
}

#[test]
fn special_tokens_and_templates_are_found_wherever_they_are_written() {
    let tokenizer = ("tokenizer.json", json_of_one().to_string());
    let config = |it: Value| ("tokenizer_config.json", it.to_string());
    let template = ("chat_template.jinja", TEMPLATE.to_owned());
    let flags = json!({"content": "<s>", "lstrip": false, "rstrip": false, "normalized": false,
                       "single_word": false, "special": true});
    for files in [
        vec![config(json!({"bos_token": "<s>"})), template.clone()],
        vec![config(json!({"bos_token": flags, "model_max_length": 1e30})), template.clone()],
        vec![config(json!({"bos_token": "<s>", "chat_template": TEMPLATE}))],
        vec![
            config(json!({"bos_token": "<s>"})),
            ("chat_template.jinja", TEMPLATE.replace('\n', "\r\n")),
        ],
        vec![config(json!({"bos_token": "<s>", "chat_template": [
            {"name": "tool_use", "template": "tools"}, {"name": "default", "template": TEMPLATE}]}))],
        vec![
            config(json!({"chat_template": "other"})),
            template.clone(),
            ("special_tokens_map.json", json!({"bos_token": "<s>"}).to_string()),
        ],
    ] {
        let folder = Made::of(&[vec![tokenizer.clone()], files.clone()].concat());
        let model = Model::load(&folder.0).unwrap();
        let text = model.chat_text(serde_json::from_slice(&chat(&json!("hi"))).unwrap()).unwrap();
        assert_eq!(text, "<s><s>user: hi", "{files:?}");
        let encoded = model.encode_body(&chat(&json!("hi"))).unwrap();
        assert_eq!(encoded.ids, model.encode_text(&text, false).unwrap().ids);
        assert_eq!(encoded.text_bytes, text.len());
    }
}

#[test]
fn the_configuration_says_what_goes_around_a_completion() {
    let tokenizer = ("tokenizer.json", json_of_one().to_string());
    let body = json!({"prompt": "once"}).to_string();
    let plain = {
        let folder = Made::of(std::slice::from_ref(&tokenizer));
        Model::load(&folder.0).unwrap().encode_body(body.as_bytes()).unwrap().ids
    };
    for (config, before, after) in [
        (
            json!({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true}),
            Some("<s>"),
            None,
        ),
        (
            json!({"bos_token": "<s>", "eos_token": "</s>", "add_eos_token": true}),
            None,
            Some("</s>"),
        ),
        (json!({"add_bos_token": true}), None, None),
        (
            json!({"bos_token": "<new>", "add_bos_token": true, "add_eos_token": false}),
            Some("<new>"),
            None,
        ),
    ] {
        let folder = Made::of(&[tokenizer.clone(), ("tokenizer_config.json", config.to_string())]);
        let model = Model::load(&folder.0).unwrap();
        let id = |text: &str| model.encode_text(text, false).unwrap().ids;
        let expected =
            [before.map(id).unwrap_or_default(), plain.clone(), after.map(id).unwrap_or_default()];
        assert_eq!(model.encode_body(body.as_bytes()).unwrap().ids, expected.concat(), "{config}");
    }
}

#[test]
fn what_cannot_be_exact_is_said() {
    let tokenizer = ("tokenizer.json", json_of_one().to_string());
    let with = |files: &[(&str, String)]| {
        let folder = Made::of(&[std::slice::from_ref(&tokenizer), files].concat());
        Model::load(&folder.0)
    };
    let template = ("chat_template.jinja", TEMPLATE.to_owned());
    let model = with(std::slice::from_ref(&template)).unwrap();
    for (body, said) in [
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]}),
            "messages[0].content[0], of the type \"image_url\", is no text",
        ),
        (json!({"messages": [{"role": "user", "content": 7}]}), "messages[0].content is a number"),
        (json!({"messages": [{"content": "x"}]}), "messages[0].role is missing"),
        (json!({"messages": []}), "messages is an empty list"),
        (json!({"messages": {}}), "messages is an object"),
        (
            json!({"messages": [{"role": "user", "content": "x"}], "chat_template": "t"}),
            "the field chat_template changes",
        ),
        (
            json!({"messages": [{"role": "user", "content": "x"}], "tools": []}),
            "tools is an empty list",
        ),
        (
            json!({"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": {"tools": 1}}),
            "the field chat_template_kwargs.tools changes",
        ),
        (json!({"prompt": [1, 2]}), "prompt[0] is a number"),
        (json!({"prompt": "x", "suffix": "y"}), "the field suffix changes"),
        (json!({"model": "m"}), "prompt is missing"),
        (json!([1]), "the body: it is a list"),
    ] {
        let error = model.encode_body(body.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with(said), "{body}: {error}");
    }
    assert!(model.encode_body(b"{\"messages\": [").is_err());
    assert_eq!((model.counters().not_exact, model.counters().encoded), (13, 0));

    let none = with(&[]).unwrap().encode_body(&chat(&json!("x"))).unwrap_err();
    assert!(matches!(none, NotExact::NoTemplate(_)), "{none}");
    let by_code = ("config.json", json!({"architectures": ["GptOssForCausalLM"]}).to_string());
    let by_code = with(&[by_code, template]).unwrap().encode_body(&chat(&json!("x"))).unwrap_err();
    assert_eq!(by_code, NotExact::NoTemplate("GptOssForCausalLM".to_owned()));
    let broken = ("chat_template.jinja", "{% for %}".to_owned());
    assert!(matches!(
        with(&[broken]).unwrap().encode_body(&chat(&json!("x"))),
        Err(NotExact::Template(_))
    ));
    let refuses =
        ("chat_template.jinja", "{{ raise_exception('Only the system may speak') }}".to_owned());
    let refused = with(&[refuses]).unwrap().encode_body(&chat(&json!("x"))).unwrap_err();
    assert!(refused.to_string().contains("Only the system may speak"), "{refused}");
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(99) %}{% endfor %}{% endfor %}{% endfor %}";
    let endless = with(&[("chat_template.jinja", endless.to_owned())]).unwrap();
    assert!(matches!(endless.encode_body(&chat(&json!("x"))), Err(NotExact::Template(_))));
}

#[test]
fn folders_that_are_no_tokenizer_are_refused_with_the_file() {
    let folder = Made::of(&[]);
    let error = Model::load(&folder.0).err().unwrap();
    assert!(
        matches!(error, LoadError::Read { .. }) && error.to_string().contains("tokenizer.json"),
        "{error}"
    );
    let folder = Made::of(&[("tokenizer.json", "{}".to_owned())]);
    assert!(matches!(Model::load(&folder.0), Err(LoadError::Damaged { .. })));
    let mut json = json_of_one();
    json["model"]["dropout"] = json!(0.1);
    let folder = Made::of(&[("tokenizer.json", json.to_string())]);
    assert!(matches!(Model::load(&folder.0), Err(LoadError::Unlike { .. })));
}
