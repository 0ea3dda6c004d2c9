use super::MoeError;
use super::error::within;

/// How many experts there are and where slots for them are. GPUs are numbered node by node, slots
/// GPU by GPU, as vLLM and SGLang number physical experts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    experts: usize,
    slots: usize,
    gpus: usize,
    nodes: usize,
    groups: usize,
    dead: Vec<bool>,
}

impl Shape {
    /// `slots` physical experts on `gpus` GPUs of `nodes` nodes, all alive, no expert groups.
    ///
    /// # Errors
    /// Where counts are 0 or do not divide one another, or the experts do not fit.
    pub fn new(experts: usize, slots: usize, gpus: usize, nodes: usize) -> Result<Self, MoeError> {
        let counts = [("experts", experts), ("slots", slots), ("gpus", gpus), ("nodes", nodes)];
        for (name, count) in counts {
            within(name, count as f64, 1.0..=65_536.0, "1 to 65536")?;
        }
        divides("slots", slots, "gpus", gpus)?;
        divides("gpus", gpus, "nodes", nodes)?;
        let shape = Self { experts, slots, gpus, nodes, groups: 1, dead: vec![false; gpus] };
        shape.fits()
    }

    /// The same for a router that picks among `groups` groups of neighbouring experts first.
    ///
    /// # Errors
    /// Where the groups are not of one size.
    pub fn with_groups(mut self, groups: usize) -> Result<Self, MoeError> {
        within("groups", groups as f64, 1.0..=65_536.0, "1 to 65536")?;
        divides("experts", self.experts, "groups", groups)?;
        self.groups = groups;
        Ok(self)
    }

    /// The same without the GPUs of these ranks: their slots stay empty.
    ///
    /// # Errors
    /// Where a rank is not there, or what lives has too few slots.
    pub fn with_dead(mut self, ranks: &[usize]) -> Result<Self, MoeError> {
        for &rank in ranks {
            let last = (self.gpus - 1) as f64;
            within("dead rank", rank as f64, 0.0..=last, "0 to gpus - 1")?;
            self.dead[rank] = true;
        }
        self.fits()
    }

    /// The same GPUs with so many slots each.
    ///
    /// # Errors
    /// Where the experts do not fit.
    pub fn with_slots_per_gpu(&self, slots: usize) -> Result<Self, MoeError> {
        within("slots_per_gpu", slots as f64, 1.0..=4_096.0, "1 to 4096")?;
        Self { slots: slots * self.gpus, ..self.clone() }.fits()
    }

    fn fits(self) -> Result<Self, MoeError> {
        let slots = self.living_gpus() * self.slots_per_gpu();
        if slots < self.experts {
            return Err(MoeError::NoRoom { experts: self.experts, slots });
        }
        Ok(self)
    }

    /// Logical experts of a layer.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// Physical experts of a layer, those of dead GPUs included.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// GPUs, dead ones included.
    #[must_use]
    pub fn gpus(&self) -> usize {
        self.gpus
    }

    /// Nodes.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// Groups that the router picks among first; 1 where it does not.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Slots of each GPU.
    #[must_use]
    pub fn slots_per_gpu(&self) -> usize {
        self.slots / self.gpus
    }

    /// GPUs of each node.
    #[must_use]
    pub fn gpus_per_node(&self) -> usize {
        self.gpus / self.nodes
    }

    /// The node of a GPU.
    #[must_use]
    pub fn node_of(&self, gpu: usize) -> usize {
        gpu / self.gpus_per_node()
    }

    /// The GPU of a slot.
    #[must_use]
    pub fn gpu_of(&self, slot: usize) -> usize {
        slot / self.slots_per_gpu()
    }

    /// Whether a GPU's rank is dead.
    #[must_use]
    pub fn is_dead(&self, gpu: usize) -> bool {
        self.dead[gpu]
    }

    /// How many GPUs live.
    #[must_use]
    pub fn living_gpus(&self) -> usize {
        self.dead.iter().filter(|&&dead| !dead).count()
    }

    /// Nodes with a GPU that lives, ascending.
    #[must_use]
    pub fn living_nodes(&self) -> Vec<usize> {
        let each = self.gpus_per_node();
        let lives = |node: &usize| !self.dead[node * each..(node + 1) * each].iter().all(|it| *it);
        (0..self.nodes).filter(lives).collect()
    }

    /// The slots of a GPU.
    #[must_use]
    pub fn slots_of(&self, gpu: usize) -> std::ops::Range<usize> {
        let each = self.slots_per_gpu();
        gpu * each..(gpu + 1) * each
    }
}

fn divides(
    name: &'static str,
    value: usize,
    of: &'static str,
    divisor: usize,
) -> Result<(), MoeError> {
    if value.is_multiple_of(divisor) {
        Ok(())
    } else {
        Err(MoeError::Uneven { name, value, of, divisor })
    }
}
