//! Built-in profiles: named compositions of the plugins, one file each.
//!
//! A profile is only configuration: whoever wants another one writes it, and `llmd_sched` has no
//! path that a written profile cannot take.

mod default;
mod least_request;
mod llm_d;
mod llm_d_precise;
mod prefix;
mod random;
mod round_robin;
mod session_hash;
mod sticky_until_saturated;

use super::config::ProfileConfig;

/// A profile that is there without being written.
struct Builtin {
    name: &'static str,
    config: fn() -> ProfileConfig,
}

const BUILTINS: &[Builtin] = &[
    default::PROFILE,
    least_request::PROFILE,
    llm_d::PROFILE,
    llm_d_precise::PROFILE,
    prefix::PROFILE,
    random::PROFILE,
    round_robin::PROFILE,
    session_hash::PROFILE,
    sticky_until_saturated::PROFILE,
];

/// The names of the built-in profiles.
pub fn builtin_profiles() -> impl Iterator<Item = &'static str> {
    BUILTINS.iter().map(|builtin| builtin.name)
}

/// The built-in profile of this name, as a user would have written it.
#[must_use]
pub fn builtin_profile(name: &str) -> Option<ProfileConfig> {
    BUILTINS.iter().find(|builtin| builtin.name == name).map(|builtin| (builtin.config)())
}
