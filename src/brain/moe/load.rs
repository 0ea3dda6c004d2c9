use super::MoeError;

/// Tokens that each expert of each layer got over some time.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertLoad {
    layers: usize,
    experts: usize,
    tokens: Vec<f64>,
}

impl ExpertLoad {
    /// The tokens, layer by layer.
    ///
    /// # Errors
    /// Where they are not `layers * experts` finite numbers of 0 or more.
    pub fn new(layers: usize, experts: usize, tokens: Vec<f64>) -> Result<Self, MoeError> {
        let expected = layers * experts;
        if tokens.len() != expected {
            let found = tokens.len();
            return Err(MoeError::Length { what: "load", found, expected, per_layer: "experts" });
        }
        if let Some(at) = tokens.iter().position(|it| !it.is_finite() || *it < 0.0) {
            let (layer, expert) = (at / experts, at % experts);
            return Err(MoeError::Load { layer, expert, tokens: tokens[at] });
        }
        Ok(Self { layers, experts, tokens })
    }

    /// Layers.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Experts of a layer.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// Tokens of each expert of a layer.
    #[must_use]
    pub fn layer(&self, layer: usize) -> &[f64] {
        &self.tokens[layer * self.experts..(layer + 1) * self.experts]
    }

    /// All of them, layer by layer.
    pub fn iter(&self) -> impl Iterator<Item = &[f64]> {
        self.tokens.chunks_exact(self.experts.max(1))
    }
}
