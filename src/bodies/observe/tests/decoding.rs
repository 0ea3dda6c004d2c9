use super::value::Value;
use crate::observe::{DecodeError, DecodeLimits, Decoded, Skipped, sglang, vllm};
use llmd_brain::index::{BlockRemoved, BlockStored, ExtraKey, GroupSpec, KvEvent, SpecKind};
use llmd_brain::{EngineHash, Tier};
use proptest::prelude::*;
use serde_json::json;

fn payload(batch: serde_json::Value) -> Vec<u8> {
    Value::from(batch).write()
}

fn of_event(event: impl Into<Value>) -> Vec<u8> {
    Value::Array(vec![Value::Float(1.5), Value::Array(vec![event.into()]), Value::Int(3)]).write()
}

fn decode(event: impl Into<Value>) -> Decoded {
    vllm::decode(&of_event(event), &DecodeLimits::default()).unwrap()
}

fn stored(event: impl Into<Value>) -> BlockStored {
    let decoded = decode(event);
    let [KvEvent::Stored(stored)] = &decoded.batch.events[..] else { panic!("{decoded:?}") };
    stored.clone()
}

/// A store with everything plain but the given fields.
#[allow(clippy::needless_pass_by_value)] // So that calls read store_with(json!(..)).
fn store_with(fields: serde_json::Value) -> serde_json::Value {
    let mut event = json!({"type": "BlockStored", "block_hashes": [1, 2], "parent_block_hash": null,
        "token_ids": [10, 11, 12, 13], "block_size": 2, "lora_id": null, "medium": "GPU", "lora_name": null});
    for (name, value) in fields.as_object().unwrap() {
        event[name] = value.clone();
    }
    event
}

fn plain() -> BlockStored {
    BlockStored {
        block_hashes: vec![EngineHash(1), EngineHash(2)],
        parent: None,
        token_ids: vec![10, 11, 12, 13],
        block_size: 2,
        tier: Tier::Gpu,
        lora: None,
        extra_keys: Vec::new(),
        group: None,
    }
}

fn text(of: &str) -> ExtraKey {
    ExtraKey::Text(of.into())
}

#[test]
fn a_batch_is_an_array_or_a_map() {
    let array = payload(json!([2.5, [["AllBlocksCleared"]], 7]));
    let map = payload(json!({"ts": 2.5, "events": [{"type": "AllBlocksCleared"}],
        "data_parallel_rank": 7, "new_field": {"a": [1, 2]}}));
    for (payload, unknown_fields) in [(array, 0), (map, 1)] {
        let decoded = vllm::decode(&payload, &DecodeLimits::default()).unwrap();
        assert_eq!(decoded.batch.timestamp_s.to_bits(), 2.5f64.to_bits());
        assert_eq!(decoded.batch.dp_rank, Some(7));
        assert_eq!(decoded.batch.events, [KvEvent::Cleared]);
        assert_eq!(decoded.skipped.unknown_fields, unknown_fields);
    }
}

#[test]
fn a_rank_may_be_missing_or_nil() {
    for batch in [json!([1, []]), json!([1.0, [], null])] {
        let decoded = vllm::decode(&payload(batch), &DecodeLimits::default()).unwrap();
        assert_eq!(decoded.batch.dp_rank, None);
    }
}

#[test]
fn every_age_of_positional_stores_is_read() {
    let full = json!([
        "BlockStored",
        [1, 2],
        9,
        [10, 11, 12, 13],
        2,
        null,
        "CPU",
        "my-lora",
        [["salt"], null],
        1,
        "sliding_window",
        64
    ]);
    let expected = [
        (6, BlockStored { parent: Some(EngineHash(9)), ..plain() }),
        (7, BlockStored { parent: Some(EngineHash(9)), tier: Tier::Cpu, ..plain() }),
        (
            12,
            BlockStored {
                parent: Some(EngineHash(9)),
                tier: Tier::Cpu,
                lora: Some("my-lora".into()),
                extra_keys: vec![vec![text("salt")], vec![]],
                group: Some(GroupSpec {
                    index: 1,
                    kind: SpecKind::SlidingWindow,
                    sliding_window_tokens: Some(64),
                }),
                ..plain()
            },
        ),
    ];
    for (length, expected) in expected {
        let age = json!(full.as_array().unwrap()[..length]);
        assert_eq!(stored(age), expected, "{length} elements");
    }
}

#[test]
fn positional_removals_are_read() {
    let removed = |event: serde_json::Value| {
        let decoded = decode(event);
        let [KvEvent::Removed(removed)] = &decoded.batch.events[..] else { panic!("{decoded:?}") };
        removed.clone()
    };
    let block_hashes = vec![EngineHash(5)];
    let oldest = BlockRemoved { block_hashes: block_hashes.clone(), tier: Tier::Gpu, group: None };
    assert_eq!(removed(json!(["BlockRemoved", [5]])), oldest);
    let newest = BlockRemoved { block_hashes, tier: Tier::Storage, group: Some(2) };
    assert_eq!(removed(json!(["BlockRemoved", [5], "storage", 2])), newest);
}

#[test]
fn removals_that_follow_each_other_are_one_within_a_tier_and_group() {
    let removed = |hash: u64, medium: &str, group: u64| json!({"type": "BlockRemoved", "block_hashes": [hash], "medium": medium, "group_idx": group});
    let events = json!([
        removed(1, "GPU", 0),
        removed(2, "GPU", 0),
        removed(1, "GPU", 0),
        removed(3, "CPU", 0),
        removed(4, "CPU", 1),
        ["AllBlocksCleared"],
        removed(5, "CPU", 1)
    ]);
    let expected = |hashes: &[u64], tier, group| {
        let block_hashes = hashes.iter().copied().map(EngineHash).collect();
        KvEvent::Removed(BlockRemoved { block_hashes, tier, group: Some(group) })
    };
    let payload = payload(json!([1.5, events, 0]));
    let decoded = vllm::decode(&payload, &DecodeLimits::default()).unwrap();
    let all = [
        expected(&[1, 2, 1], Tier::Gpu, 0),
        expected(&[3], Tier::Cpu, 0),
        expected(&[4], Tier::Cpu, 1),
        KvEvent::Cleared,
        expected(&[5], Tier::Cpu, 1),
    ];
    assert_eq!(decoded.batch.events, all);

    let limits = DecodeLimits { max_blocks: 2, ..DecodeLimits::default() };
    let decoded = vllm::decode(&payload, &limits).unwrap();
    assert_eq!(
        decoded.batch.events[..2],
        [expected(&[1, 2], Tier::Gpu, 0), expected(&[1], Tier::Gpu, 0)]
    );
}

#[test]
fn fields_may_come_in_any_order() {
    let Value::Map(fields) = Value::from(store_with(json!({"group_idx": 3}))) else {
        unreachable!()
    };
    for start in 0..fields.len() {
        let mut rotated = fields.clone();
        rotated.rotate_left(start);
        let group = stored(Value::Map(rotated.clone())).group.unwrap();
        assert_eq!(group.index, 3);
        assert_eq!(BlockStored { group: None, ..stored(Value::Map(rotated)) }, plain());
    }
}

#[test]
fn token_ids_may_be_of_any_width_between_each_other() {
    let mut tokens: Vec<u32> = vec![0, 127, 128, 255, 256, 65_535, 65_536, u32::MAX];
    tokens.extend_from_within(..);
    // Longer than they need be, as no usual encoder writes them.
    let mut ids: Vec<Value> = tokens.iter().map(|&id| Value::Int(id.into())).collect();
    let plain_ids = ids.clone();
    for place in 0..ids.len() {
        ids.clone_from(&plain_ids);
        let mut payload = of_event({
            ids[place] = Value::Text("HERE".into());
            let Value::Map(mut fields) = Value::from(store_with(json!({"block_size": 8}))) else {
                unreachable!()
            };
            for (name, value) in &mut fields {
                if *name == Value::from("token_ids") {
                    *value = Value::Array(ids.clone());
                }
            }
            Value::Map(fields)
        });
        let at = payload.windows(5).position(|bytes| bytes == b"\xa4HERE").unwrap();
        let mut wide = vec![0xcf];
        wide.extend(u64::from(tokens[place]).to_be_bytes());
        payload.splice(at..at + 5, wide);
        let decoded = vllm::decode(&payload, &DecodeLimits::default()).unwrap();
        let [KvEvent::Stored(stored)] = &decoded.batch.events[..] else { panic!("{decoded:?}") };
        assert_eq!(stored.token_ids, tokens);
    }
}

#[test]
fn hashes_are_unsigned_negative_or_raw() {
    let raw: Vec<u8> = (0..32).collect();
    let event = Value::Map(vec![
        ("type".into(), "BlockRemoved".into()),
        (
            "block_hashes".into(),
            Value::Array(vec![
                Value::Int(u64::MAX.into()),
                Value::Int(-2),
                Value::Bytes(raw.clone()),
                Value::Bytes(raw[..16].to_vec()),
            ]),
        ),
    ]);
    let decoded = decode(event);
    let [KvEvent::Removed(removed)] = &decoded.batch.events[..] else { panic!("{decoded:?}") };
    assert_eq!(
        removed.block_hashes,
        [
            EngineHash(u64::MAX),
            EngineHash(u64::MAX - 1),
            EngineHash(0x1819_1a1b_1c1d_1e1f),
            EngineHash(0x0809_0a0b_0c0d_0e0f),
        ]
    );
}

#[test]
fn media_are_tiers_in_any_case_and_none_is_the_gpu() {
    for (fields, tier) in [
        (json!({"medium": null}), Tier::Gpu),
        (json!({"medium": "gpu"}), Tier::Gpu),
        (json!({"medium": "Cpu"}), Tier::Cpu),
        (json!({"medium": "CPU_PINNED"}), Tier::Cpu),
        (json!({"medium": "STORAGE"}), Tier::Storage),
        (json!({"medium": "DISK"}), Tier::Storage),
        (json!({"medium": "EXTERNAL"}), Tier::Remote),
        (json!({"medium": "CPU", "locality": "REMOTE"}), Tier::Remote),
        (json!({"medium": "CPU", "locality": "LOCAL", "ownership": "x"}), Tier::Cpu),
    ] {
        assert_eq!(stored(store_with(fields.clone())).tier, tier, "{fields}");
    }
}

#[test]
fn an_unknown_medium_is_left_out_both_ways() {
    for event in [
        store_with(json!({"medium": "TAPE"})),
        json!({"type": "BlockRemoved", "block_hashes": [1], "medium": "TAPE"}),
    ] {
        let decoded = decode(event);
        assert_eq!(decoded.batch.events, []);
        assert_eq!(decoded.skipped, Skipped { unknown_mediums: 1, ..Skipped::default() });
    }
}

#[test]
fn extra_keys_are_texts_digests_and_items() {
    let event =
        store_with(json!({"extra_keys": [["lora", ["image-1", -3], ["image-2", 0]], null]}));
    let image =
        |identifier: &str, offset| ExtraKey::Multimodal { identifier: identifier.into(), offset };
    let expected = vec![vec![text("lora"), image("image-1", -3), image("image-2", 0)], vec![]];
    assert_eq!(stored(event).extra_keys, expected);

    let Value::Map(mut fields) = Value::from(store_with(json!({}))) else { unreachable!() };
    let digest = Value::Array(vec![Value::Nil, Value::Array(vec![Value::Bytes(vec![0xab, 0x01])])]);
    fields.push(("extra_keys".into(), digest));
    assert_eq!(stored(Value::Map(fields)).extra_keys, [vec![], vec![text("ab01")]]);
}

#[test]
fn an_extra_key_that_is_not_understood_still_sets_the_block_apart() {
    let keys = stored(store_with(json!({"extra_keys": [[7], [["a", 1, 2]]]}))).extra_keys;
    assert_eq!(keys, [vec![text("msgpack:07")], vec![text("msgpack:93a1610102")]]);
}

#[test]
fn an_adapter_without_a_name_does_not_pass_for_the_base_model() {
    assert_eq!(stored(store_with(json!({"lora_id": 4}))).lora.as_deref(), Some("lora_id:4"));
    let named = store_with(json!({"lora_id": 4, "lora_name": "tuned"}));
    assert_eq!(stored(named).lora.as_deref(), Some("tuned"));
}

#[test]
fn groups_have_kinds() {
    for (kind, expected) in [
        (json!("full_attention"), SpecKind::FullAttention),
        (json!("mla_attention"), SpecKind::Mla),
        (json!("sink_full_attention"), SpecKind::SinkFullAttention),
        (json!("sliding_window_mla"), SpecKind::SlidingWindow),
        (json!("chunked_local_attention"), SpecKind::ChunkedLocal),
        (json!("mamba"), SpecKind::Mamba),
        (json!("cross_attention"), SpecKind::Other),
        (json!(null), SpecKind::Unstated),
    ] {
        let event = store_with(json!({"group_idx": 1, "kv_cache_spec_kind": kind}));
        assert_eq!(stored(event).group.unwrap().kind, expected, "{kind}");
    }
}

#[test]
fn blocks_may_be_named_without_tokens_and_tokens_without_blocks() {
    let offloaded = store_with(json!({"token_ids": [], "medium": "CPU"}));
    assert!(stored(offloaded).token_ids.is_empty());
    let window = store_with(json!({"block_hashes": [], "group_idx": 0}));
    assert!(stored(window).block_hashes.is_empty());
}

#[test]
fn unknown_events_and_fields_are_counted_and_skipped() {
    for event in [json!({"type": "BlockMoved", "to": 7}), json!(["BlockMoved", [1], {"a": null}])] {
        let decoded = decode(event);
        assert_eq!(decoded.batch.events, []);
        assert_eq!(decoded.skipped.unknown_events, 1);
    }
    let decoded = decode(store_with(json!({"colour": [["red"], {"deep": [1.5, true]}]})));
    assert_eq!(decoded.batch.events, [KvEvent::Stored(plain())]);
    assert_eq!(decoded.skipped, Skipped { unknown_fields: 1, ..Skipped::default() });
}

#[test]
fn a_store_that_cannot_be_is_left_out_and_the_rest_is_kept() {
    for fields in [
        json!({"token_ids": [1, 4_294_967_296u64]}),
        json!({"token_ids": [1, -1]}),
        json!({"token_ids": "tokens"}),
        json!({"block_hashes": [1.5]}),
        json!({"block_size": null}),
        json!({"block_size": -16}),
        json!({"lora_name": 5}),
        json!({"lora_name": "x".repeat(5_000)}),
        json!({"extra_keys": [["x".repeat(5_000)]]}),
    ] {
        let batch = json!([1.5, [store_with(fields.clone()), ["AllBlocksCleared"]], 0]);
        let decoded = vllm::decode(&payload(batch), &DecodeLimits::default()).unwrap();
        assert_eq!(decoded.batch.events, [KvEvent::Cleared], "{fields}");
        assert_eq!(decoded.skipped, Skipped { malformed_stores: 1, ..Skipped::default() });
    }
}

#[test]
fn a_removal_that_cannot_be_read_is_an_error() {
    let event = json!({"type": "BlockRemoved", "block_hashes": ["text"]});
    let error = vllm::decode(&of_event(event), &DecodeLimits::default()).unwrap_err().to_string();
    assert!(error.contains("block_hashes is Text"), "{error}");
}

#[test]
fn payloads_that_are_no_batch_are_named() {
    for (bytes, says) in [
        (&b""[..], "the batch: the payload ends"),
        (b"\xa5hello", "expected an array"),
        (b"\x90", "events is missing"),
        (b"\x80", "events is missing"),
        (b"\x92\xc0\x90", "ts: expected a timestamp"),
        (b"\x92\x01\xdd\xff\xff\xff\xff", "events of 4294967295 elements"),
        (b"\x92\x01\xdc\xff\xff", "the payload ends"),
        (b"\x92\x01\x91\x90", "the type of an event is missing"),
        (b"\x92\x01\x91\x80", "the type of an event is missing"),
        (b"\x92\x01\x91\x81\xa1x\xc1", "an unknown field"),
        (b"\x93\x01\x90\xcf\0\0\0\x01\0\0\0\0", "data_parallel_rank is 4294967296"),
    ] {
        let error = vllm::decode(bytes, &DecodeLimits::default()).unwrap_err().to_string();
        assert!(error.contains(says), "{bytes:02x?}: {error}");
    }
}

#[test]
fn declared_lengths_cost_nothing_beyond_the_payload() {
    // block_hashes declares a million elements that are not there.
    let payload = b"\x92\x01\x91\x92\xacBlockRemoved\xdd\x00\x0f\x42\x40";
    let error = vllm::decode(payload, &DecodeLimits::default()).unwrap_err();
    assert!(matches!(error, DecodeError::Msgpack { .. }), "{error}");
}

#[test]
fn the_limits_are_the_caller_s() {
    let limits = DecodeLimits { max_tokens: 3, ..DecodeLimits::default() };
    let decoded = vllm::decode(&of_event(store_with(json!({}))), &limits).unwrap();
    assert_eq!(decoded.skipped.malformed_stores, 1);
    let limits = DecodeLimits { max_events: 0, ..DecodeLimits::default() };
    assert!(vllm::decode(&of_event(store_with(json!({}))), &limits).is_err());
}

#[test]
fn values_nested_without_end_are_refused() {
    let mut event = b"\x92\x01\x91\x81\xa1x".to_vec();
    event.extend(std::iter::repeat_n(0x91, 100_000));
    event.push(0xc0);
    let error = vllm::decode(&event, &DecodeLimits::default()).unwrap_err().to_string();
    assert!(error.contains("nested deeper than 16"), "{error}");
}

#[test]
fn sglang_s_salt_sets_a_prompt_apart_from_its_first_block_on() {
    let decode = |fields: serde_json::Value| {
        let decoded = sglang::decode(&of_event(store_with(fields)), &DecodeLimits::default());
        let decoded = decoded.unwrap();
        let [KvEvent::Stored(stored)] = &decoded.batch.events[..] else { panic!("{decoded:?}") };
        stored.extra_keys.clone()
    };
    assert_eq!(decode(json!({"cache_salt": "tenant"})), [vec![text("tenant")], vec![]]);
    let child = json!({"cache_salt": "tenant", "parent_block_hash": -7});
    assert_eq!(decode(child), Vec::<Vec<ExtraKey>>::new());
}

#[test]
fn blocks_named_by_pairs_of_tokens_are_left_out() {
    let event = store_with(json!({"token_ids": [[1, 2], [2, 3], [3, 4], [4, 5]]}));
    let decoded = sglang::decode(&of_event(event), &DecodeLimits::default()).unwrap();
    assert_eq!(decoded.batch.events, []);
    assert_eq!(decoded.skipped, Skipped { paired_token_stores: 1, ..Skipped::default() });
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        (i128::from(i64::MIN)..=i128::from(u64::MAX)).prop_map(Value::Int),
        any::<f64>().prop_map(Value::Float),
        "[a-z_]{0,12}".prop_map(Value::Text),
        prop::sample::select(vec![
            "type",
            "block_hashes",
            "token_ids",
            "extra_keys",
            "BlockStored",
            "BlockRemoved",
            "block_size",
            "medium",
            "GPU"
        ])
        .prop_map(Value::from),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            prop::collection::vec((inner.clone(), inner), 0..8).prop_map(Value::Map),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_stored_is_decoded(
        hashes in prop::collection::vec(any::<u64>(), 0..40),
        parent in any::<Option<u64>>(),
        tokens in prop::collection::vec(any::<u32>(), 0..200),
        block_size in 1u32..1000,
        lora in prop::option::of("[a-z]{1,8}"),
    ) {
        let event = store_with(json!({"block_hashes": hashes, "parent_block_hash": parent,
            "token_ids": tokens, "block_size": block_size, "lora_name": lora}));
        let expected = BlockStored {
            block_hashes: hashes.into_iter().map(EngineHash).collect(),
            parent: parent.map(EngineHash),
            token_ids: tokens,
            block_size,
            lora,
            ..plain()
        };
        prop_assert_eq!(stored(event), expected);
    }

    #[test]
    fn no_tree_breaks_the_decoders(tree in any_value(), as_event in any::<bool>()) {
        let bytes = if as_event { of_event(tree) } else { tree.write() };
        let _ = vllm::decode(&bytes, &DecodeLimits::default());
        let _ = sglang::decode(&bytes, &DecodeLimits::default());
    }

    #[test]
    fn a_cut_payload_is_an_error(tokens in prop::collection::vec(any::<u32>(), 0..20), cut in 0usize..60) {
        let whole = of_event(store_with(json!({"token_ids": tokens})));
        let cut = whole.len().saturating_sub(cut + 1);
        prop_assert!(vllm::decode(&whole[..cut], &DecodeLimits::default()).is_err());
    }
}
