//! Built-in profiles: named compositions of the plugins, one file each.
//!
//! A profile is only configuration: whoever wants another one writes it, and `llmd_sched` has no
//! path that a written profile cannot take.

mod aibrix;
mod default;
mod dualmap;
mod dynamo;
mod least_request;
mod llm_d;
mod llm_d_precise;
mod lmetric;
mod min_ttft;
mod mooncake;
mod power_of_two;
mod preble;
mod prefix;
mod random;
mod ray_prefix;
mod round_robin;
mod session_hash;
mod sglang;
mod sticky_until_saturated;

use super::config::ProfileConfig;

/// A profile that is there without being written.
struct Builtin {
    name: &'static str,
    config: fn() -> ProfileConfig,
}

const BUILTINS: &[Builtin] = &[
    aibrix::PROFILE,
    default::PROFILE,
    dualmap::PROFILE,
    dynamo::PROFILE,
    least_request::PROFILE,
    llm_d::PROFILE,
    llm_d_precise::PROFILE,
    lmetric::PROFILE,
    min_ttft::PROFILE,
    mooncake::PROFILE,
    power_of_two::PROFILE,
    preble::PROFILE,
    prefix::PROFILE,
    random::PROFILE,
    ray_prefix::PROFILE,
    round_robin::PROFILE,
    session_hash::PROFILE,
    sglang::PROFILE,
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
