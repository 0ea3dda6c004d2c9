//! `decode-filter`, `prefill-filter`, `encode-filter`: the endpoints that serve a phase.
//!
//! Source: llm-d's role filters. Formula: keep by role.
//!
//! | filter | keeps |
//! |---|---|
//! | `decode-filter` | [`Role::Decode`], [`Role::Both`] |
//! | `prefill-filter` | [`Role::Prefill`], [`Role::Both`] |
//! | `encode-filter` | [`Role::Encode`] |
//!
//! Inputs: the endpoint's role. Parameters: none. Limits: hard, the request has no candidate where
//! nobody serves the phase. Of several in one profile each must be passed.

use super::Filter;
use crate::fleet::Role;
use crate::rng::Rng;
use crate::schedule::context::Context;
use crate::schedule::param::Params;
use crate::schedule::registry::{self, Plugin};
use serde::Deserialize;

pub(super) const DECODE: Plugin<dyn Filter> =
    Plugin { name: "decode-filter", build: |params| build(params, &[Role::Decode, Role::Both]) };
pub(super) const PREFILL: Plugin<dyn Filter> =
    Plugin { name: "prefill-filter", build: |params| build(params, &[Role::Prefill, Role::Both]) };
pub(super) const ENCODE: Plugin<dyn Filter> =
    Plugin { name: "encode-filter", build: |params| build(params, &[Role::Encode]) };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoParams {}

struct ByRole {
    roles: &'static [Role],
}

fn build(params: &Params, roles: &'static [Role]) -> Result<Box<dyn Filter>, String> {
    let NoParams {} = registry::read(params)?;
    Ok(Box::new(ByRole { roles }))
}

impl Filter for ByRole {
    fn filter(&self, cx: &Context<'_>, _rng: &mut Rng, keep: &mut [bool]) {
        let roles = &cx.fleet.columns().role;
        for (keep, id) in keep.iter_mut().zip(cx.ids()) {
            *keep = self.roles.contains(&roles[id.slot.index()]);
        }
    }

    fn is_hard(&self) -> bool {
        true
    }

    fn selects_role(&self) -> bool {
        true
    }
}
