//! The encoders against decoders of their own, and against bytes that CPython wrote.

use super::*;
use proptest::prelude::*;

/// A Python value.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    None,
    Integer(i64),
    Bytes(Vec<u8>),
    Text(String),
    Tuple(Vec<Value>),
}

/// Takes bytes off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        head
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn little_endian(&mut self, len: usize) -> u64 {
        self.take(len).iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
    }

    fn big_endian(&mut self, len: usize) -> u64 {
        self.take(len).iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
    }

    fn text(&mut self, len: usize) -> Value {
        Value::Text(String::from_utf8(self.take(len).to_vec()).unwrap())
    }
}

/// Runs a pickle of protocol 5 on a stack machine, as unpicklers do; frames must tile it.
fn unpickle(pickle: &[u8]) -> Value {
    const MARK: Option<Value> = None;
    let mut reader = Reader(pickle);
    assert_eq!(reader.take(2), [0x80, 5]);
    let (mut stack, mut memo) = (Vec::new(), Vec::new());
    let mut frame_left_at = reader.0.len();
    loop {
        let opcode = reader.byte();
        let value = match opcode {
            0x95 => {
                assert!(frame_left_at > reader.0.len(), "a frame begins within a frame");
                let len = reader.little_endian(8) as usize;
                frame_left_at = reader.0.len() - len;
                continue;
            }
            0x94 => {
                memo.push(stack.last().cloned().flatten().unwrap());
                continue;
            }
            b'.' => break,
            b'(' => {
                stack.push(MARK);
                continue;
            }
            b't' => {
                let mark = stack.iter().rposition(Option::is_none).unwrap();
                let parts = stack.split_off(mark).into_iter().flatten().collect();
                Value::Tuple(parts)
            }
            b')' => Value::Tuple(Vec::new()),
            0x85..=0x87 => {
                let parts = stack.split_off(stack.len() - usize::from(opcode - 0x84));
                Value::Tuple(parts.into_iter().map(Option::unwrap).collect())
            }
            b'N' => Value::None,
            b'K' => Value::Integer(reader.little_endian(1) as i64),
            b'M' => Value::Integer(reader.little_endian(2) as i64),
            b'J' => Value::Integer(i64::from(reader.little_endian(4) as i32)),
            0x8A => {
                let len = usize::from(reader.byte());
                let unused_bits = 64 - 8 * len;
                Value::Integer((reader.little_endian(len) << unused_bits) as i64 >> unused_bits)
            }
            b'C' => {
                let len = reader.little_endian(1) as usize;
                Value::Bytes(reader.take(len).to_vec())
            }
            0x8C => {
                let len = reader.little_endian(1) as usize;
                reader.text(len)
            }
            b'X' => {
                let len = reader.little_endian(4) as usize;
                reader.text(len)
            }
            b'h' => memo[reader.little_endian(1) as usize].clone(),
            b'j' => memo[reader.little_endian(4) as usize].clone(),
            other => panic!("opcode {other:#x}"),
        };
        stack.push(Some(value));
    }
    assert!(reader.0.is_empty());
    assert_eq!(stack.len(), 1);
    stack.pop().flatten().unwrap()
}

/// Decodes canonical CBOR: each head must be the shortest that there is.
fn from_cbor(reader: &mut Reader<'_>) -> Value {
    let head = reader.byte();
    if head == 0xF6 {
        return Value::None;
    }
    let (argument, least) = match head & 31 {
        small @ 0..24 => (u64::from(small), 0),
        24 => (reader.big_endian(1), 24),
        25 => (reader.big_endian(2), 1 << 8),
        26 => (reader.big_endian(4), 1 << 16),
        27 => (reader.big_endian(8), 1 << 32),
        other => panic!("additional information {other}"),
    };
    assert!(argument >= least, "{argument} has a shorter head");
    match head >> 5 {
        0 => Value::Integer(argument as i64),
        1 => Value::Integer(-1 - argument as i64),
        2 => Value::Bytes(reader.take(argument as usize).to_vec()),
        3 => reader.text(argument as usize),
        4 => Value::Tuple((0..argument).map(|_| from_cbor(reader)).collect()),
        other => panic!("major type {other}"),
    }
}

/// The value that vLLM hashes for a block.
fn value_of(parent: &[u8], tokens: &[u32], extra: &[ExtraKey<'_>]) -> Value {
    let text = |text: &str| Value::Text(text.to_owned());
    let key = |key: &ExtraKey<'_>| {
        Value::Tuple(match *key {
            ExtraKey::Lora(lora) => vec![text("lora"), text(lora.name), text(lora.path)],
            ExtraKey::Multimodal { identifier, offset } => {
                vec![text("mm"), text(identifier), Value::Integer(offset)]
            }
            ExtraKey::CacheSalt(salt) => vec![text("cache_salt"), text(salt)],
            ExtraKey::PromptEmbeds(digest) => {
                vec![text("prompt_embeds"), Value::Bytes(digest.to_vec())]
            }
        })
    };
    let extra = match extra {
        [] => Value::None,
        keys => Value::Tuple(keys.iter().map(key).collect()),
    };
    let tokens = tokens.iter().map(|&token| Value::Integer(i64::from(token))).collect();
    Value::Tuple(vec![Value::Bytes(parent.to_vec()), Value::Tuple(tokens), extra])
}

/// An extra key that owns what it refers to.
#[derive(Debug, Clone)]
enum OwnedKey {
    Lora(String, String),
    Multimodal(String, i64),
    CacheSalt(String),
    PromptEmbeds([u8; 32]),
}

impl OwnedKey {
    fn borrowed(&self) -> ExtraKey<'_> {
        match self {
            Self::Lora(name, path) => ExtraKey::Lora(LoraAdapter { name, path }),
            Self::Multimodal(identifier, offset) => {
                ExtraKey::Multimodal { identifier, offset: *offset }
            }
            Self::CacheSalt(salt) => ExtraKey::CacheSalt(salt),
            Self::PromptEmbeds(digest) => ExtraKey::PromptEmbeds(digest),
        }
    }
}

/// Strings around each length that is encoded differently, and those that CPython shares.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,3}",
        prop::sample::select(vec!["", "s", "ü", "mm", "lora"]).prop_map(str::to_owned),
        prop::sample::select(vec![23, 24, 255, 256, 65_535, 65_536, 70_000])
            .prop_map(|len| "x".repeat(len)),
    ]
}

/// Integers around each width that is encoded differently.
fn offsets() -> impl Strategy<Value = i64> {
    let around = (0..63u32, -2..=2i64, any::<bool>());
    around.prop_map(|(bits, nudge, negative)| {
        let value = (1i64 << bits).saturating_add(nudge);
        if negative { -value } else { value }
    })
}

fn keys() -> impl Strategy<Value = Vec<OwnedKey>> {
    let key = prop_oneof![
        (texts(), texts()).prop_map(|(name, path)| OwnedKey::Lora(name, path)),
        (texts(), offsets()).prop_map(|(identifier, at)| OwnedKey::Multimodal(identifier, at)),
        texts().prop_map(OwnedKey::CacheSalt),
        any::<[u8; 32]>().prop_map(OwnedKey::PromptEmbeds),
    ];
    prop::collection::vec(key, 0..6)
}

fn token_ids() -> impl Strategy<Value = Vec<u32>> {
    let id = (0..32u32, 0..4u32).prop_map(|(bits, nudge)| (1u32 << bits).wrapping_add(nudge));
    prop_oneof![
        prop::collection::vec(prop_oneof![any::<u32>(), id], 0..70),
        (13_000..30_000usize).prop_map(|len| vec![1 << 20; len]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_encoded_decodes_to_what_vllm_hashes(
        parent in prop_oneof![any::<[u8; 16]>().prop_map(Vec::from), any::<[u8; 32]>().prop_map(Vec::from)],
        tokens in token_ids(),
        keys in keys(),
    ) {
        let extra: Vec<_> = keys.iter().map(OwnedKey::borrowed).collect();
        let expected = value_of(&parent, &tokens, &extra);

        let mut pickled = Vec::new();
        pickle::block(&mut pickled, &parent, &tokens, &extra);
        prop_assert_eq!(unpickle(&pickled), expected.clone());

        let mut encoded = Vec::new();
        cbor::block(&mut encoded, &parent, &tokens, &extra);
        let mut reader = Reader(&encoded);
        prop_assert_eq!(from_cbor(&mut reader), expected);
        prop_assert!(reader.0.is_empty());
    }

    #[test]
    fn a_seed_decodes_to_itself(seed in texts()) {
        let mut pickled = Vec::new();
        pickle::text(&mut pickled, &seed);
        prop_assert_eq!(unpickle(&pickled), Value::Text(seed.clone()));
        let mut encoded = Vec::new();
        cbor::text(&mut encoded, &seed);
        prop_assert_eq!(from_cbor(&mut Reader(&encoded)), Value::Text(seed));
    }
}

const PARENT: [u8; 32] = {
    let mut bytes = [0; 32];
    let mut i = 0;
    while i < 32 {
        bytes[i] = i as u8;
        i += 1;
    }
    bytes
};

/// What `pickle.dumps(value, 5)` gives in CPython 3.11 and 3.13.
#[test]
fn a_pickle_is_what_cpython_writes() {
    let item = |offset| ExtraKey::Multimodal { identifier: "x", offset };
    let mut pickled = Vec::new();
    pickle::block(
        &mut pickled,
        &PARENT[..16],
        &[1, 256, 65_536, (1 << 31) - 1, 1 << 31, u32::MAX],
        &[item(3), item(-256), ExtraKey::CacheSalt("x")],
    );
    let expected: &[&[u8]] = &[
        b"\x80\x05\x95\x61\0\0\0\0\0\0\0",
        b"C\x10\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x94",
        b"(K\x01M\0\x01J\0\0\x01\0J\xff\xff\xff\x7f\x8a\x05\0\0\0\x80\0\x8a\x05\xff\xff\xff\xff\0t\x94",
        b"\x8c\x02mm\x94\x8c\x01x\x94K\x03\x87\x94",
        b"h\x02h\x03J\0\xff\xff\xff\x87\x94",
        b"\x8c\x0acache_salt\x94h\x03\x86\x94",
        b"\x87\x94\x87\x94.",
    ];
    assert_eq!(pickled, expected.concat());
}

/// SHA-256 of what `pickle.dumps(value, 5)` gives in CPython 3.11 and 3.13.
#[test]
fn long_pickles_are_what_cpython_writes() {
    let hash = |tokens: &[u32], extra: &[ExtraKey<'_>]| {
        let parent = FullHash::of_32(PARENT);
        BlockHasher::new(HashAlgorithm::Sha256).next(&parent, tokens, extra).to_string()
    };
    let tokens: Vec<u32> = (0..33_000).map(|i| (1 << 20) + i).collect();
    assert_eq!(
        hash(&tokens, &[]),
        "e26ed65fc580a53343d68cae7f77e0801ebfffcebb7861d9a595d70f6f1f67e4",
        "three frames"
    );
    assert_eq!(
        hash(&[1, 2], &[ExtraKey::CacheSalt(&"y".repeat(65_535))]),
        "c665ae3953bfd7770f6896cb9805a5314aca3c382a451b07d8aa0afc7f04120e",
        "the longest string within a frame"
    );
    assert_eq!(
        hash(&[1, 2], &[ExtraKey::CacheSalt(&"y".repeat(65_536))]),
        "92e35ac6137b36a49ca533260d7472c47e6bbc00e4e6969bf50ec329db597534",
        "the shortest string outside of frames"
    );
    let identifiers: Vec<String> = (0..130).map(|i| format!("id-{i:03}")).collect();
    let items = identifiers.iter().zip(0..);
    let mut extra: Vec<_> =
        items.map(|(identifier, offset)| ExtraKey::Multimodal { identifier, offset }).collect();
    extra.push(ExtraKey::CacheSalt("ü"));
    extra.push(ExtraKey::Lora(LoraAdapter { name: "ü", path: "ü" }));
    assert_eq!(
        hash(&[7; 16], &extra),
        "f5f369dd333c8965b2fdfc7aea8c9ed5a13db04df6b6e79c82fda8000d2a8e05",
        "references past the 256th object"
    );
    assert_eq!(
        none_hash(HashAlgorithm::Sha256, "").to_string(),
        "3279c4b947f331d055c47442171c9ea17712596bd7fe094c31d4a5d432b42d68"
    );
}
