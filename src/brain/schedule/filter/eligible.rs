//! The conditions that hold whatever the profile: in the fleet, ready, of the model, in the allowed
//! set, with the required labels.

use crate::EndpointId;
use crate::fleet::{Fleet, Role};
use crate::schedule::error::Exclusions;
use crate::schedule::{NoCandidate, Request};

/// Who passed; buffers that are kept between requests.
#[derive(Debug, Default)]
pub struct Eligible {
    /// Who passed, in slot order.
    pub ids: Vec<EndpointId>,
    /// Why the others did not.
    pub exclusions: Exclusions,
    /// Whether the slot's tenant is in the allowed set; empty without one.
    allowed: Vec<bool>,
}

/// Collects the endpoints that could take the request. `any_role` lets those through that only
/// prefill, decode or encode.
///
/// An empty model in the request matches every endpoint, and an endpoint that does not say its
/// model matches every request.
pub fn eligible(
    request: &Request,
    fleet: &Fleet,
    any_role: bool,
    into: &mut Eligible,
) -> Result<(), NoCandidate> {
    let columns = fleet.columns();
    into.ids.clear();
    into.exclusions = Exclusions::default();
    let exclusions = &mut into.exclusions;
    mark_allowed(request, fleet, &mut into.allowed);
    let any_model = request.model.is_empty();
    let model = fleet.model_index(&request.model);
    let unnamed = fleet.model_index("");
    let mut other_role = 0;
    for id in fleet.ids() {
        let row = id.slot.index();
        let serves = columns.model[row];
        exclusions.endpoints += 1;
        if !columns.health[row].is_schedulable() {
            exclusions.not_ready += 1;
        } else if !(any_model || Some(serves) == model || Some(serves) == unnamed) {
            exclusions.other_model += 1;
        } else if !into.allowed.get(row).copied().unwrap_or(request.allowed.is_none()) {
            exclusions.not_allowed += 1;
        } else if !(request.required_labels.is_empty() || has_labels(request, fleet, id)) {
            exclusions.without_label += 1;
        } else if !(any_role || columns.role[row] == Role::Both) {
            other_role += 1;
        } else {
            into.ids.push(id);
        }
    }
    if other_role > 0 {
        exclusions.by_profile.push(("role (prefill, decode or encode only)".into(), other_role));
    }
    if exclusions.endpoints == 0 {
        Err(NoCandidate::EmptyFleet)
    } else if into.ids.is_empty() {
        Err(NoCandidate::Excluded(exclusions.clone()))
    } else {
        Ok(())
    }
}

fn mark_allowed(request: &Request, fleet: &Fleet, marks: &mut Vec<bool>) {
    marks.clear();
    let Some(allowed) = &request.allowed else { return };
    marks.resize(fleet.columns().slots(), false);
    for &id in allowed.iter().filter(|&&id| fleet.contains(id)) {
        marks[id.slot.index()] = true;
    }
}

fn has_labels(request: &Request, fleet: &Fleet, id: EndpointId) -> bool {
    let Some(spec) = fleet.spec_at(id.slot) else { return false };
    request.required_labels.iter().all(|(label, value)| spec.labels.get(label) == Some(value))
}
