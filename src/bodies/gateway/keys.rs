//! API keys: who a client is, and what it may ask for.
//!
//! Keys are kept as SHA-256 digests and looked up by digest: how long that takes tells of the digest
//! of what was presented, which says nothing about any key. Keys have to be long random strings; a
//! digest of a short one can be guessed.

use super::allowance::Allowance;
use super::config::{AuthConfig, KeyConfig};
use super::refusal::Refusal;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

type KeyDigest = [u8; 32];

/// The keys that there are.
#[derive(Debug, Default)]
pub(super) struct Keys {
    by_digest: HashMap<KeyDigest, Arc<Key>>,
    secret: Option<String>,
}

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    config: KeyConfig,
    requests: Option<Arc<Allowance>>,
    tokens: Option<Arc<Allowance>>,
}

/// A key that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("auth.keys: {name:?}: {reason}")]
pub struct BadKey {
    /// Which.
    pub name: String,
    /// Why, and what would be right.
    pub reason: &'static str,
}

impl Keys {
    /// Those of a configuration; what has been used of an allowance that stays is kept from `before`.
    pub(super) fn new(config: &AuthConfig, before: Option<&Self>) -> Result<Self, BadKey> {
        let mut by_digest = HashMap::new();
        for key in &config.keys {
            let bad = |reason| BadKey { name: key.name.clone(), reason };
            let digest = digest_of_hex(&key.sha256)
                .ok_or_else(|| bad("sha256 must be 64 hex digits: printf %s KEY | sha256sum"))?;
            let old = before.and_then(|keys| keys.by_digest.get(&digest));
            let kept = |per_minute: Option<u64>, old: Option<&Option<Arc<Allowance>>>| {
                let per_minute = per_minute?;
                let old = old.and_then(Option::as_ref).filter(|it| it.per_minute() == per_minute);
                Some(old.map_or_else(|| Arc::new(Allowance::new(per_minute)), Arc::clone))
            };
            let key = Key {
                config: key.clone(),
                requests: kept(key.requests_per_minute, old.map(|it| &it.requests)),
                tokens: kept(key.tokens_per_minute, old.map(|it| &it.tokens)),
            };
            if by_digest.insert(digest, Arc::new(key)).is_some() {
                return Err(bad("two keys have this sha256: each needs one of its own"));
            }
        }
        Ok(Self { by_digest, secret: config.salt_secret.clone() })
    }

    /// Whose request it is; `None` where no keys are asked for.
    pub(super) fn identify(&self, headers: &HeaderMap) -> Result<Option<Arc<Key>>, Refusal> {
        if self.by_digest.is_empty() {
            return Ok(None);
        }
        let refuse = |message: &str| {
            let kind = "invalid_request_error";
            Err(Refusal::new(StatusCode::UNAUTHORIZED, kind, "invalid_api_key", message))
        };
        let Some(said) = headers.get(AUTHORIZATION) else {
            return refuse("no API key: give one as Authorization: Bearer KEY");
        };
        let said = said.as_bytes();
        let presented = match said.split_at_checked(7) {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => key.trim_ascii(),
            _ => return refuse("the API key must come as Authorization: Bearer KEY"),
        };
        let digest: KeyDigest = Sha256::digest(presented).into();
        match self.by_digest.get(&digest) {
            Some(key) => Ok(Some(Arc::clone(key))),
            None => refuse("this API key is not known"),
        }
    }

    /// The salt of a tenant's blocks, where tenants are kept apart: nobody else finds what is cached
    /// under it, not even by how long an answer takes. What the client gave as salt divides further.
    pub(super) fn salt(&self, tenant: Option<&str>, given: Option<&str>) -> Option<String> {
        let secret = self.secret.as_ref()?;
        let mut digest = Sha256::new();
        // With lengths, so that no two inputs run into the same text.
        for part in [secret.as_str(), tenant.unwrap_or_default(), given.unwrap_or_default()] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        let mut hex = String::with_capacity(32);
        for byte in &digest.finalize()[..16] {
            let _ = write!(hex, "{byte:02x}");
        }
        Some(hex)
    }
}

impl Key {
    /// Who pays: never who a header says, or a client could choose to be another.
    pub(super) fn tenant(&self) -> &str {
        self.config.tenant.as_deref().unwrap_or(&self.config.name)
    }

    /// The most important that its requests may be.
    pub(super) fn max_priority(&self) -> i32 {
        self.config.max_priority
    }

    /// Whether it may ask for a model by this name, which is of a body that was read to its end or not.
    pub(super) fn check_model(&self, model: Option<&str>, is_whole: bool) -> Result<(), Refusal> {
        let allowed = &self.config.models;
        if !is_whole && !allowed.is_empty() {
            // An engine may read on, and find another model.
            let message = "the body is no JSON object, and this API key may use some models only";
            return Err(Refusal::invalid("invalid_json", message));
        }
        if allowed.is_empty() || model.is_some_and(|it| allowed.iter().any(|one| one == it)) {
            return Ok(());
        }
        let message = match model {
            Some(_) => "this API key may not use this model",
            None => "this API key may use some models only: name one in the request",
        };
        let kind = "invalid_request_error";
        Err(Refusal::new(StatusCode::FORBIDDEN, kind, "model_not_allowed", message))
    }

    /// Takes a request with so many tokens of prompt out of its allowances.
    pub(super) fn admit(&self, now_ns: u64, prompt_tokens: u32) -> Result<(), Refusal> {
        let limits = [
            (&self.requests, 1, "requests_per_minute"),
            (&self.tokens, u64::from(prompt_tokens), "tokens_per_minute"),
        ];
        for (allowance, amount, limit) in limits {
            let Some(allowance) = allowance else { continue };
            if let Err(after_ms) = allowance.take(now_ns, amount) {
                let per_minute = allowance.per_minute();
                let message = format!("this API key has used up its {limit} ({per_minute})");
                let status = StatusCode::TOO_MANY_REQUESTS;
                let refusal =
                    Refusal::new(status, "rate_limit_error", "rate_limit_exceeded", message);
                return Err(Refusal { retry_after_ms: Some(after_ms), ..refusal });
            }
        }
        Ok(())
    }

    /// What its tokens are charged to when the answer ends.
    pub(super) fn tokens(&self) -> Option<Arc<Allowance>> {
        self.tokens.clone()
    }
}

fn digest_of_hex(text: &str) -> Option<KeyDigest> {
    let bytes = text.as_bytes();
    if bytes.len() != 64 || !bytes.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(bytes.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

/// Whether a secret is the one of a digest in hex, in a time that does not depend on which.
pub(super) fn is_secret(presented: &[u8], sha256: &str) -> bool {
    let Some(wanted) = digest_of_hex(sha256) else { return false };
    let had: KeyDigest = Sha256::digest(presented).into();
    had.iter().zip(wanted).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha256(key: &str) -> String {
        Sha256::digest(key).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    fn key(name: &str, change: impl FnOnce(&mut KeyConfig)) -> KeyConfig {
        let mut key =
            KeyConfig { name: name.to_owned(), sha256: sha256(name), ..KeyConfig::default() };
        change(&mut key);
        key
    }

    fn keys(all: Vec<KeyConfig>, secret: Option<&str>) -> Keys {
        let config = AuthConfig { keys: all, salt_secret: secret.map(str::to_owned) };
        Keys::new(&config, None).unwrap()
    }

    fn presenting(said: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, said.parse().unwrap())])
    }

    #[test]
    fn only_a_key_that_is_known_lets_in() {
        let all = keys(vec![key("one", |it| it.tenant = Some("a".into()))], None);
        let found = all.identify(&presenting("bearer one")).unwrap().unwrap();
        assert_eq!(found.tenant(), "a");
        for said in ["Bearer two", "Basic one", "Bearer", ""] {
            let refusal = all.identify(&presenting(said)).unwrap_err();
            assert_eq!(refusal.status, 401);
            assert!(!refusal.message.contains("two"), "a key is not repeated: {refusal:?}");
        }
        assert_eq!(all.identify(&HeaderMap::new()).unwrap_err().status, 401);
        assert!(keys(vec![], None).identify(&HeaderMap::new()).unwrap().is_none());
    }

    #[test]
    fn a_key_may_be_kept_to_some_models() {
        let all = keys(vec![key("one", |it| it.models = vec!["small".into()])], None);
        let found = all.identify(&presenting("Bearer one")).unwrap().unwrap();
        found.check_model(Some("small"), true).unwrap();
        for model in [Some("large"), None] {
            assert_eq!(found.check_model(model, true).unwrap_err().status, 403);
        }
        assert_eq!(found.check_model(Some("small"), false).unwrap_err().status, 400);
        // Of nobody in particular it is its own.
        assert_eq!(found.tenant(), "one");
    }

    #[test]
    fn allowances_hold_and_outlive_a_reload() {
        let config = |per_minute| AuthConfig {
            keys: vec![key("one", |it| it.tokens_per_minute = Some(per_minute))],
            salt_secret: None,
        };
        let before = Keys::new(&config(100), None).unwrap();
        let found = before.identify(&presenting("Bearer one")).unwrap().unwrap();
        found.admit(0, 100).unwrap();
        let refusal = found.admit(0, 1).unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.code), (429, "rate_limit_exceeded"));
        assert!(refusal.retry_after_ms.is_some());
        let after = Keys::new(&config(100), Some(&before)).unwrap();
        let same = after.identify(&presenting("Bearer one")).unwrap().unwrap();
        assert!(same.admit(0, 1).is_err());
        let other = Keys::new(&config(200), Some(&before)).unwrap();
        let raised = other.identify(&presenting("Bearer one")).unwrap().unwrap();
        raised.admit(0, 1).unwrap();
    }

    #[test]
    fn tenants_have_salts_of_their_own_that_clients_cannot_choose() {
        let all = keys(vec![], Some("secret"));
        let salts = [
            all.salt(Some("a"), None),
            all.salt(Some("b"), None),
            all.salt(Some("a"), Some("b")),
            all.salt(Some("ab"), None),
            all.salt(None, Some("ab")),
            keys(vec![], Some("other")).salt(Some("a"), None),
        ];
        let distinct: std::collections::HashSet<_> = salts.iter().flatten().collect();
        assert_eq!(distinct.len(), salts.len());
        assert_eq!(all.salt(Some("a"), None), salts[0]);
        assert_eq!(keys(vec![], None).salt(Some("a"), None), None);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let config = |keys| AuthConfig { keys, salt_secret: None };
        let bad = key("one", |it| it.sha256 = "one".into());
        let message = Keys::new(&config(vec![bad]), None).unwrap_err().to_string();
        assert!(message.contains("\"one\"") && message.contains("64 hex digits"), "{message}");
        let twice = config(vec![key("one", |_| ()), key("one", |_| ())]);
        assert!(Keys::new(&twice, None).unwrap_err().to_string().contains("two keys"));
    }

    #[test]
    fn a_secret_is_known_by_its_digest() {
        assert!(is_secret(b"token", &sha256("token")));
        assert!(!is_secret(b"tokem", &sha256("token")) && !is_secret(b"token", "token"));
    }
}
