use super::super::map::{EMPTY, LayerMap, max_over_mean};
use super::super::{Shape, Sharing, shares};
use super::Move;

/// A layer's map while it is mended, and what each GPU gets by it.
#[derive(Clone)]
pub(super) struct State<'a> {
    pub shape: &'a Shape,
    pub sharing: Sharing,
    /// Expert -> its tokens.
    pub load: &'a [f64],
    /// Slot -> expert.
    pub experts: Vec<u32>,
    /// Slot -> tokens.
    pub given: Vec<f64>,
    /// GPU -> tokens.
    pub tokens: Vec<f64>,
    /// Expert -> its slots.
    pub held: Vec<Vec<u32>>,
    /// Tokens of a living GPU on average.
    pub mean: f64,
}

/// Sweeps of the pouring that follows a move: most of it is near where the move was.
const SWEEPS: usize = 24;

impl<'a> State<'a> {
    pub fn new(experts: Vec<u32>, load: &'a [f64], shape: &'a Shape, sharing: Sharing) -> Self {
        let mut held = vec![Vec::new(); load.len()];
        for (slot, &expert) in (0..).zip(&experts) {
            if expert != EMPTY {
                held[expert as usize].push(slot);
            }
        }
        let mean = load.iter().sum::<f64>() / shape.living_gpus() as f64;
        let (given, tokens) = (vec![0.0; experts.len()], vec![0.0; shape.gpus()]);
        let mut state = Self { shape, sharing, load, experts, given, tokens, held, mean };
        for expert in 0..load.len() {
            state.divide(expert);
        }
        state.settle();
        state
    }

    pub fn gpu(&self, slot: u32) -> usize {
        self.shape.gpu_of(slot as usize)
    }

    /// Whether a GPU holds an expert.
    pub fn holds(&self, gpu: usize, expert: u32) -> bool {
        self.experts[self.shape.slots_of(gpu)].contains(&expert)
    }

    pub fn balance(&self) -> f64 {
        max_over_mean(&self.tokens, self.shape)
    }

    pub fn fullest(&self) -> usize {
        let more = |a: usize, b: usize| if self.tokens[b] > self.tokens[a] { b } else { a };
        (0..self.shape.gpus()).fold(0, more)
    }

    /// What a GPU with so many tokens is worth avoiding: the square of its excess.
    pub fn weight(&self, tokens: f64) -> f64 {
        let excess = (tokens - self.mean).max(0.0);
        excess * excess
    }

    /// The sum of that.
    pub fn unevenness(&self) -> f64 {
        self.tokens.iter().map(|tokens| self.weight(*tokens)).sum()
    }

    pub fn apply(&mut self, found: &Move) {
        match *found {
            Move::Replace { slot, expert } => self.replace(slot, expert),
            Move::Swap { a, b } => {
                let (left, right) = (self.experts[a as usize], self.experts[b as usize]);
                self.replace(a, right);
                self.replace(b, left);
            }
        }
        self.settle();
    }

    fn replace(&mut self, slot: u32, expert: u32) {
        let gone = std::mem::replace(&mut self.experts[slot as usize], expert);
        let gpu = self.gpu(slot);
        self.tokens[gpu] -= std::mem::take(&mut self.given[slot as usize]);
        if gone != EMPTY {
            self.held[gone as usize].retain(|it| *it != slot);
            self.divide(gone as usize);
        }
        self.held[expert as usize].push(slot);
        self.divide(expert as usize);
    }

    /// Divides an expert's tokens evenly.
    fn divide(&mut self, expert: usize) {
        let each = self.load[expert] / self.held[expert].len().max(1) as f64;
        for &slot in &self.held[expert] {
            let given = std::mem::replace(&mut self.given[slot as usize], each);
            self.tokens[self.shape.gpu_of(slot as usize)] += each - given;
        }
    }

    /// Where shares are weighted, pours every expert with replicas anew until levels rest.
    fn settle(&mut self) {
        if self.sharing == Sharing::Equal {
            return;
        }
        for _ in 0..SWEEPS {
            let mut moved = 0.0;
            for expert in 0..self.held.len() {
                if self.held[expert].len() > 1 {
                    moved += self.pour(expert);
                }
            }
            if moved <= 1e-4 * self.mean {
                break;
            }
        }
    }

    fn pour(&mut self, expert: usize) -> f64 {
        let slots = &self.held[expert];
        for &slot in slots {
            self.tokens[self.shape.gpu_of(slot as usize)] -= self.given[slot as usize];
        }
        let filled = slots.iter().map(|slot| self.tokens[self.shape.gpu_of(*slot as usize)]);
        let level = shares::level(filled, self.load[expert]);
        let mut moved = 0.0;
        for &slot in slots {
            let gpu = self.shape.gpu_of(slot as usize);
            // A second replica on one GPU finds it full.
            let poured = (level - self.tokens[gpu]).max(0.0);
            moved += (poured - self.given[slot as usize]).abs();
            self.given[slot as usize] = poured;
            self.tokens[gpu] += poured;
        }
        moved
    }

    pub fn into_map(self) -> LayerMap {
        match self.sharing {
            Sharing::Equal => LayerMap::equal(self.experts, self.shape),
            Sharing::Weighted => shares::weighted(self.experts, self.load, self.shape),
        }
    }
}
