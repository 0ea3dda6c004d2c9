//! W3C Trace Context, level 1: which trace a request belongs to (<https://www.w3.org/TR/trace-context/>).

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use llmd_brain::rng::Rng;
use std::cell::RefCell;

pub(in crate::gateway) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const SAMPLED: u8 = 1;

/// A place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) trace_id: u128,
    pub(super) span_id: u64,
    pub(super) is_sampled: bool,
}

impl Context {
    /// The one that a head names; `None` where it names none that can be, which begins a trace anew.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(TRACEPARENT).iter();
        let (Some(only), None) = (all.next(), all.next()) else { return None };
        Self::parse(only.to_str().ok()?.trim())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let version = u8::from_str_radix(hex(parts.next()?, 2)?, 16).ok()?;
        let trace_id = u128::from_str_radix(hex(parts.next()?, 32)?, 16).ok()?;
        let span_id = u64::from_str_radix(hex(parts.next()?, 16)?, 16).ok()?;
        let flags = u8::from_str_radix(hex(parts.next()?, 2)?, 16).ok()?;
        // Later versions may have more parts, this one has not.
        let is_known = version != 0xff && (version > 0 || parts.next().is_none());
        let is_sampled = flags & SAMPLED != 0;
        (is_known && trace_id != 0 && span_id != 0).then_some(Self {
            trace_id,
            span_id,
            is_sampled,
        })
    }

    /// The beginning of a trace; `percent` of them are sampled.
    pub(super) fn begin(percent: f64) -> Self {
        let is_sampled = random(Rng::next_f64) * 100.0 < percent;
        let trace_id = u128::from(random_id()) << 64 | u128::from(random_id());
        Self { trace_id, span_id: random_id(), is_sampled }
    }

    /// What says so to the next.
    pub(super) fn header(self) -> HeaderValue {
        let Self { trace_id, span_id, is_sampled } = self;
        let text = format!("00-{trace_id:032x}-{span_id:016x}-{:02x}", u8::from(is_sampled));
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
    }
}

/// Lower-case hex digits, so many.
fn hex(text: &str, digits: usize) -> Option<&str> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == digits && text.bytes().all(is_hex)).then_some(text)
}

/// An id that no other span has, most likely; never zero, which stands for none.
pub(super) fn random_id() -> u64 {
    random(Rng::next_u64).max(1)
}

fn random<T>(draw: impl FnOnce(&mut Rng) -> T) -> T {
    thread_local! {
        static RANDOM: RefCell<Rng> = RefCell::new(Rng::new(seed()));
    }
    RANDOM.with_borrow_mut(draw)
}

/// The system's own, and other for each thread.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::thread::current().id())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_said_is_read_and_written_again() {
        let context = Context::parse(GOOD).unwrap();
        assert!(context.is_sampled && context.span_id == 0xb7ad_6b71_6920_3331);
        assert_eq!(context.header(), GOOD);
        let later = GOOD.replacen("00", "cc", 1) + "-what-will-be";
        assert_eq!(Context::parse(&later), Some(context));
        assert!(!Context::parse(&GOOD.replace("-01", "-02")).unwrap().is_sampled);
    }

    #[test]
    fn what_cannot_be_begins_a_trace_anew() {
        for bad in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD.replacen("00", "ff", 1),
            &format!("{GOOD}-more"),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            &GOOD.replace("b7ad", "+7ad"),
            &GOOD.replace("b7ad", "b7a"),
        ] {
            assert_eq!(Context::parse(bad), None, "{bad}");
        }
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert!(Context::read(&headers).is_some());
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(Context::read(&headers), None);
    }

    #[test]
    fn so_many_of_a_hundred_are_sampled() {
        let sampled = |percent| (0..10_000).filter(|_| Context::begin(percent).is_sampled).count();
        assert_eq!((sampled(0.0), sampled(100.0)), (0, 10_000));
        let tenth = sampled(10.0);
        assert!((700..1_300).contains(&tenth), "{tenth}");
    }
}
