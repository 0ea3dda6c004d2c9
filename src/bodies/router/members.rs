//! The endpoints as the body knows them: their specs, and who follows their events and metrics.

use super::LiveRouter;
use super::error::RouterError;
use super::observers::{KvPosition, Observed, Observers};
use crate::observe::{Subscriber, SubscriberStatus};
use llmd_brain::EndpointId;
use llmd_brain::brain::{Action, EndpointChange, EndpointView, Input};
use llmd_brain::fleet::{EndpointSpec, MetricsSample};
use parking_lot::{RwLock, RwLockReadGuard};
use std::sync::Arc;
use std::time::Instant;
use tokio::time::timeout_at;

/// How a caller names an endpoint.
#[derive(Debug, Clone)]
pub enum MemberRef {
    /// By id.
    Id(EndpointId),
    /// By the text of its id (`"3.1"`), or by its address.
    Name(String),
}

impl std::fmt::Display for MemberRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

struct Member {
    id: EndpointId,
    spec: Arc<EndpointSpec>,
    present: bool,
    observers: Observers,
}

/// One row a slot. The last tenant of a slot stays known until the next one comes, so that a
/// decision for an endpoint that has just left still has an address.
#[derive(Default)]
pub(super) struct Members {
    roster: RwLock<Roster>,
}

#[derive(Default)]
struct Roster {
    rows: Vec<Option<Member>>,
    /// The model that everybody serves, where there is one and it has a name.
    sole_model: Option<String>,
}

impl Roster {
    fn row(&mut self, id: EndpointId) -> Option<&mut Member> {
        self.rows.get_mut(id.slot.index())?.as_mut().filter(|member| member.id == id)
    }

    fn present(&self) -> impl Iterator<Item = &Member> {
        self.rows.iter().flatten().filter(|member| member.present)
    }

    fn changed(&mut self) {
        self.sole_model = {
            let mut models = self.present().map(|member| member.spec.model.as_str());
            let first = models.next().filter(|model| !model.is_empty());
            first.filter(|first| models.all(|model| model == *first)).map(str::to_owned)
        };
    }
}

/// The members, none of whom can be replaced while this lives: the endpoint of a decision made
/// meanwhile is among them.
pub(super) struct MembersGuard<'a>(RwLockReadGuard<'a, Roster>);

impl MembersGuard<'_> {
    fn member(&self, id: EndpointId) -> Option<&Member> {
        self.0.rows.get(id.slot.index())?.as_ref().filter(|member| member.id == id)
    }

    /// What an endpoint was said to be when it joined.
    pub(super) fn spec(&self, id: EndpointId) -> Option<Arc<EndpointSpec>> {
        Some(Arc::clone(&self.member(id)?.spec))
    }

    /// The model that everybody serves, where there is one and it has a name.
    pub(super) fn sole_model(&self) -> Option<&str> {
        self.0.sole_model.as_deref()
    }

    /// Whether somebody serves a model, or does not say which.
    pub(super) fn serves(&self, model: &str) -> bool {
        self.present().any(|it| it.spec.model == model || it.spec.model.is_empty())
    }

    fn present(&self) -> impl Iterator<Item = &Member> {
        self.0.present()
    }

    /// Who is meant.
    pub(super) fn find(&self, name: &MemberRef) -> Result<EndpointId, RouterError> {
        let unknown = || RouterError::UnknownEndpoint(name.to_string());
        match name {
            MemberRef::Id(id) => match self.member(*id) {
                Some(member) if member.present => Ok(*id),
                _ => Err(unknown()),
            },
            MemberRef::Name(text) => {
                let mut found =
                    self.present().filter(|it| it.spec.address == *text).map(|member| member.id);
                match (found.next(), found.count()) {
                    (Some(id), 0) => Ok(id),
                    (Some(_), others) => Err(RouterError::AmbiguousAddress {
                        address: text.clone(),
                        ranks: others + 1,
                    }),
                    (None, _) => self
                        .present()
                        .find(|member| member.id.to_string() == *text)
                        .map(|member| member.id)
                        .ok_or_else(unknown),
                }
            }
        }
    }
}

impl Members {
    pub(super) fn read(&self) -> MembersGuard<'_> {
        MembersGuard(self.roster.read())
    }

    /// An endpoint left: nobody follows it any more.
    pub(super) fn depart(&self, id: EndpointId) {
        let observers = {
            let mut roster = self.roster.write();
            let Some(member) = roster.row(id) else { return };
            member.present = false;
            let observers = std::mem::take(&mut member.observers);
            roster.changed();
            observers
        };
        drop(observers);
    }

    pub(super) fn drop_observers(&self) {
        let observers: Vec<_> = self
            .roster
            .write()
            .rows
            .iter_mut()
            .flatten()
            .map(|member| std::mem::take(&mut member.observers))
            .collect();
        drop(observers);
    }

    /// Everybody present: id, what it was said to be, and who follows its events.
    pub(super) fn followed(&self) -> Vec<(EndpointId, Arc<EndpointSpec>, Option<Arc<Subscriber>>)> {
        let member = |member: &Member| {
            let subscriber = member.observers.subscriber().cloned();
            (member.id, Arc::clone(&member.spec), subscriber)
        };
        self.read().present().map(member).collect()
    }

    /// Everybody present, with what follows them.
    pub(super) fn descriptions(&self) -> Vec<(EndpointSpec, Observed)> {
        self.read()
            .present()
            .map(|member| (EndpointSpec::clone(&member.spec), member.observers.observed().clone()))
            .collect()
    }
}

impl LiveRouter {
    /// Adds an endpoint, and follows what it says.
    ///
    /// # Errors
    /// [`RouterError::Brain`] for one that is in the fleet already or cannot be,
    /// [`RouterError::Closed`], [`RouterError::Runtime`].
    pub fn add_endpoint(
        self: &Arc<Self>,
        spec: EndpointSpec,
        observed: Observed,
    ) -> Result<EndpointId, RouterError> {
        self.check_open()?;
        let actions = {
            let mut roster = self.members.roster.write();
            let actions = self.brain.step(self.now(), Input::Join(spec.clone()))?;
            let Some(id) = actions.iter().find_map(joined) else { return Err(RouterError::Closed) };
            let row = id.slot.index();
            if roster.rows.len() <= row {
                roster.rows.resize_with(row + 1, || None);
            }
            let observers = Observers::default();
            roster.rows[row] = Some(Member { id, spec: Arc::new(spec), present: true, observers });
            roster.changed();
            actions
        };
        self.carry_out(&actions);
        let Some(id) = actions.iter().find_map(joined) else { return Err(RouterError::Closed) };
        match Observers::start(self, id, observed) {
            Ok(observers) => {
                let mut roster = self.members.roster.write();
                // Where it left meanwhile, its observers end here.
                if let Some(member) = roster.row(id).filter(|member| member.present) {
                    member.observers = observers;
                }
                Ok(id)
            }
            Err(error) => {
                self.step(Input::Leave(id))?;
                Err(error)
            }
        }
    }

    /// Removes an endpoint.
    ///
    /// # Errors
    /// [`RouterError::UnknownEndpoint`], [`RouterError::Closed`].
    pub fn remove_endpoint(&self, name: &MemberRef) -> Result<(), RouterError> {
        self.check_open()?;
        let id = self.find(name)?;
        self.step(Input::Leave(id)).map(drop)
    }

    /// Changes whether an endpoint gets requests.
    ///
    /// # Errors
    /// [`RouterError::UnknownEndpoint`], [`RouterError::Closed`].
    pub fn change_endpoint(
        &self,
        name: &MemberRef,
        change: EndpointChange,
    ) -> Result<(), RouterError> {
        self.check_open()?;
        let id = self.find(name)?;
        self.step(Input::Change(id, change)).map(drop)
    }

    /// Who is meant.
    ///
    /// # Errors
    /// [`RouterError::UnknownEndpoint`], [`RouterError::AmbiguousAddress`].
    pub fn find(&self, name: &MemberRef) -> Result<EndpointId, RouterError> {
        self.members.read().find(name)
    }

    /// What an endpoint was said to be; also of one that left, until another has its slot.
    #[must_use]
    pub fn spec(&self, id: EndpointId) -> Option<Arc<EndpointSpec>> {
        self.members.read().spec(id)
    }

    /// Everybody in the fleet, in slot order.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointView> {
        self.brain.endpoints(self.now())
    }

    /// One endpoint; `None` where it left.
    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> Option<EndpointView> {
        self.brain.endpoint(self.now(), id)
    }

    /// How far an endpoint's events have been followed.
    ///
    /// # Errors
    /// [`RouterError::UnknownEndpoint`], [`RouterError::NoKvEvents`].
    pub fn kv_position(&self, name: &MemberRef) -> Result<KvPosition, RouterError> {
        self.subscriber(name).map(|subscriber| KvPosition::from(&subscriber.status()))
    }

    fn subscriber(&self, name: &MemberRef) -> Result<Arc<Subscriber>, RouterError> {
        let members = self.members.read();
        let id = members.find(name)?;
        members
            .member(id)
            .and_then(|member| member.observers.subscriber().cloned())
            .ok_or_else(|| RouterError::NoKvEvents(name.to_string()))
    }

    /// Waits on this thread until an endpoint's position is `reached`, or `deadline`; returns
    /// where it stands then.
    ///
    /// # Errors
    /// As [`kv_position`](Self::kv_position).
    pub fn wait_kv(
        &self,
        name: &MemberRef,
        deadline: Instant,
        reached: impl Fn(&KvPosition) -> bool + Send + 'static,
    ) -> Result<KvPosition, RouterError> {
        let subscriber = self.subscriber(name)?;
        let wanted = move |status: &SubscriberStatus| reached(&KvPosition::from(status));
        let position = self.wait_on(async move {
            let in_time = timeout_at(deadline.into(), subscriber.wait_for(wanted)).await;
            let status = in_time.ok().and_then(Result::ok);
            KvPosition::from(&status.unwrap_or_else(|| subscriber.status()))
        })?;
        Ok(position)
    }

    /// Takes in what an engine says of itself, which somebody brings.
    ///
    /// # Errors
    /// [`RouterError::UnknownEndpoint`], [`RouterError::Closed`].
    pub fn report(&self, name: &MemberRef, sample: MetricsSample) -> Result<(), RouterError> {
        self.check_open()?;
        let id = self.find(name)?;
        self.observed(id, sample)
    }

    /// An engine told of itself. A subscriber hears of a restart before the brain does.
    pub(super) fn observed(
        &self,
        id: EndpointId,
        sample: MetricsSample,
    ) -> Result<(), RouterError> {
        if let Some(started_s) = sample.process_start_time_s
            && let Some(subscriber) =
                self.members.read().member(id).and_then(|member| member.observers.subscriber())
        {
            subscriber.note_process_start(started_s);
        }
        self.step(Input::Metrics(id, sample)).map(drop)
    }

    /// An engine restarted. A subscriber was told before the brain, and sees to the rest; where
    /// there is none, what was believed is void.
    pub(super) fn resync(&self, id: EndpointId) {
        let is_followed =
            self.members.read().member(id).is_some_and(|it| it.observers.subscriber().is_some());
        if !is_followed && let Err(error) = self.step(Input::KvLost(id)) {
            tracing::debug!(%error, "an endpoint restarted and left");
        }
    }
}

fn joined(action: &Action) -> Option<EndpointId> {
    match action {
        Action::Joined(id) => Some(*id),
        _ => None,
    }
}
