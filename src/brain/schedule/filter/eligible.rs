//! The conditions that hold whatever the profile: in the fleet, ready, of the model, in the allowed
//! set, with the required labels.

use crate::EndpointId;
use crate::fleet::{Fleet, Role};
use crate::schedule::candidates::Candidates;
use crate::schedule::error::Exclusions;
use crate::schedule::{NoCandidate, Request};
use std::sync::Arc;

/// Who could take a request of one model; most requests ask for nothing else.
#[derive(Debug, Clone, Default)]
pub struct Eligible {
    /// Who passed, in slot order.
    pub candidates: Arc<Candidates>,
    /// Why the others did not.
    pub exclusions: Arc<Exclusions>,
}

/// Models whose candidates are kept from one request to the next.
const KEPT_MODELS: usize = 16;

/// The endpoints that could take requests. Who they are changes when the roster does, not from
/// request to request, so they are kept until then: by model, at most [`KEPT_MODELS`].
#[derive(Debug)]
pub struct Gate {
    /// Whether those pass that only prefill, decode or encode.
    any_role: bool,
    roster: u64,
    kept: Vec<(String, Eligible)>,
}

impl Gate {
    pub fn new(any_role: bool) -> Self {
        Self { any_role, roster: 0, kept: Vec::new() }
    }

    /// The endpoints that could take the request.
    ///
    /// An empty model in the request matches every endpoint, and an endpoint that does not say its
    /// model matches every request.
    pub fn eligible(&mut self, request: &Request, fleet: &Fleet) -> Result<Eligible, NoCandidate> {
        let is_particular = request.allowed.is_some()
            || !request.excluded.is_empty()
            || !request.required_labels.is_empty();
        let eligible = if is_particular {
            collect(request, fleet, self.any_role)
        } else {
            self.of_model(request, fleet).clone()
        };
        if eligible.exclusions.endpoints == 0 {
            Err(NoCandidate::EmptyFleet)
        } else if eligible.candidates.ids.is_empty() {
            Err(NoCandidate::Excluded(Exclusions::clone(&eligible.exclusions)))
        } else {
            Ok(eligible)
        }
    }

    fn of_model(&mut self, request: &Request, fleet: &Fleet) -> &Eligible {
        if self.roster != fleet.roster() {
            self.kept.clear();
            self.roster = fleet.roster();
        }
        let known = self.kept.iter().position(|(model, _)| *model == request.model);
        let at = known.unwrap_or_else(|| {
            if self.kept.len() == KEPT_MODELS {
                self.kept.remove(0);
            }
            let eligible = collect(request, fleet, self.any_role);
            self.kept.push((request.model.clone(), eligible));
            self.kept.len() - 1
        });
        &self.kept[at].1
    }
}

fn collect(request: &Request, fleet: &Fleet, any_role: bool) -> Eligible {
    let columns = fleet.columns();
    let mut ids = Vec::new();
    let mut exclusions = Exclusions::default();
    let allowed = allowed_slots(request, fleet);
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
        } else if allowed.as_ref().is_some_and(|allowed| !allowed[row])
            || request.excluded.contains(&id)
        {
            exclusions.not_allowed += 1;
        } else if !(request.required_labels.is_empty() || has_labels(request, fleet, id)) {
            exclusions.without_label += 1;
        } else if !(any_role || columns.role[row] == Role::Both) {
            other_role += 1;
        } else {
            ids.push(id);
        }
    }
    if other_role > 0 {
        exclusions.by_profile.push(("role (prefill, decode or encode only)".into(), other_role));
    }
    Eligible { candidates: Arc::new(Candidates::new(&ids)), exclusions: Arc::new(exclusions) }
}

/// Whether each slot's tenant is in the allowed set, where there is one.
fn allowed_slots(request: &Request, fleet: &Fleet) -> Option<Vec<bool>> {
    let allowed = request.allowed.as_ref()?;
    let mut marks = vec![false; fleet.columns().slots()];
    for &id in allowed.iter().filter(|&&id| fleet.contains(id)) {
        marks[id.slot.index()] = true;
    }
    Some(marks)
}

fn has_labels(request: &Request, fleet: &Fleet, id: EndpointId) -> bool {
    let Some(spec) = fleet.spec_at(id.slot) else { return false };
    request.required_labels.iter().all(|(label, value)| spec.labels.get(label) == Some(value))
}
