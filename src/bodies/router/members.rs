//! The endpoints as the body knows them: their specs, and who follows their events and metrics.

use super::LiveRouter;
use super::error::RouterError;
use super::observers::{KvPosition, Observed, Observers};
use llmd_brain::EndpointId;
use llmd_brain::brain::{Action, EndpointChange, EndpointView, Input};
use llmd_brain::fleet::EndpointSpec;
use parking_lot::{RwLock, RwLockReadGuard};
use std::sync::Arc;

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
    rows: RwLock<Vec<Option<Member>>>,
}

/// The members, none of whom can be replaced while this lives: the endpoint of a decision made
/// meanwhile is among them.
pub(super) struct MembersGuard<'a>(RwLockReadGuard<'a, Vec<Option<Member>>>);

impl MembersGuard<'_> {
    fn member(&self, id: EndpointId) -> Option<&Member> {
        self.0.get(id.slot.index())?.as_ref().filter(|member| member.id == id)
    }

    /// What an endpoint was said to be when it joined.
    pub(super) fn spec(&self, id: EndpointId) -> Option<Arc<EndpointSpec>> {
        Some(Arc::clone(&self.member(id)?.spec))
    }

    fn present(&self) -> impl Iterator<Item = &Member> {
        self.0.iter().flatten().filter(|member| member.present)
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
        MembersGuard(self.rows.read())
    }

    /// An endpoint left: nobody follows it any more.
    pub(super) fn depart(&self, id: EndpointId) {
        let observers = {
            let mut rows = self.rows.write();
            let Some(Some(member)) = rows.get_mut(id.slot.index()) else { return };
            if member.id != id {
                return;
            }
            member.present = false;
            std::mem::take(&mut member.observers)
        };
        drop(observers);
    }

    pub(super) fn drop_observers(&self) {
        let observers: Vec<_> = self
            .rows
            .write()
            .iter_mut()
            .flatten()
            .map(|member| std::mem::take(&mut member.observers))
            .collect();
        drop(observers);
    }

    /// Everybody present, with what follows them.
    fn descriptions(&self) -> Vec<(EndpointSpec, Observed)> {
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
            let mut rows = self.members.rows.write();
            let actions = self.brain.step(self.now(), Input::Join(spec.clone()))?;
            let Some(id) = actions.iter().find_map(joined) else { return Err(RouterError::Closed) };
            let row = id.slot.index();
            if rows.len() <= row {
                rows.resize_with(row + 1, || None);
            }
            let observers = Observers::default();
            rows[row] = Some(Member { id, spec: Arc::new(spec), present: true, observers });
            actions
        };
        self.carry_out(&actions);
        let Some(id) = actions.iter().find_map(joined) else { return Err(RouterError::Closed) };
        match Observers::start(self, id, observed) {
            Ok(observers) => {
                let mut rows = self.members.rows.write();
                match rows.get_mut(id.slot.index()) {
                    Some(Some(member)) if member.id == id && member.present => {
                        member.observers = observers;
                    }
                    // It left meanwhile; dropping its observers ends them.
                    _ => {}
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
    /// [`RouterError::UnknownEndpoint`].
    pub fn remove_endpoint(&self, name: &MemberRef) -> Result<(), RouterError> {
        let id = self.find(name)?;
        self.step(Input::Leave(id)).map(drop)
    }

    /// Changes whether an endpoint gets requests.
    ///
    /// # Errors
    /// [`RouterError::UnknownEndpoint`].
    pub fn change_endpoint(
        &self,
        name: &MemberRef,
        change: EndpointChange,
    ) -> Result<(), RouterError> {
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
        let members = self.members.read();
        let id = members.find(name)?;
        members
            .member(id)
            .and_then(|member| member.observers.kv_position())
            .ok_or_else(|| RouterError::NoKvEvents(name.to_string()))
    }

    /// A router like this one for a child process: the same settings and endpoints, nothing in
    /// flight. The decision log of process `pid` goes to a file of its own.
    ///
    /// # Errors
    /// As [`new`](Self::new) and [`add_endpoint`](Self::add_endpoint).
    pub fn like(&self, pid: u32) -> Result<Arc<Self>, RouterError> {
        let mut config = self.config.clone();
        if let Some(record) = &mut config.record {
            record.as_mut_os_string().push(format!(".{pid}"));
        }
        let child = Self::new(config)?;
        for (spec, observed) in self.members.descriptions() {
            child.add_endpoint(spec, observed)?;
        }
        Ok(child)
    }
}

fn joined(action: &Action) -> Option<EndpointId> {
    match action {
        Action::Joined(id) => Some(*id),
        _ => None,
    }
}
