//! The embedder that is built in: a static model, which looks up a vector for each token and takes their mean. No
//! network, no files, some hundred thousand short texts a second and core.

use model2vec_rs::model::StaticModel;

use crate::error::{Error, Result};
use crate::ports::Embedder;

/// The model's name; it changes with the model, since vectors of different models cannot be compared.
const ID: &str = "static-minilm-256";
const TOKENIZER: &[u8] = include_bytes!("../../assets/models/static-minilm-256/tokenizer.json");
const WEIGHTS: &[u8] = include_bytes!("../../assets/models/static-minilm-256/model.safetensors");
const CONFIG: &[u8] = include_bytes!("../../assets/models/static-minilm-256/config.json");
/// Tokens of a text that are looked at; longer texts were cut into pieces before.
const TOKENS_MAX: usize = 1024;

/// The built-in model. Clones share it.
#[derive(Debug, Clone)]
pub struct StaticEmbedder {
    model: StaticModel,
}

impl StaticEmbedder {
    /// Reads the model out of the binary.
    ///
    /// # Errors
    /// `Bug` where it cannot be read.
    pub fn new() -> Result<Self> {
        let model = StaticModel::from_bytes(TOKENIZER, WEIGHTS, CONFIG, Some(true));
        let model = model.map_err(|e| Error::bug(format!("read the built-in model `{ID}`: {e}")))?;
        Ok(Self { model })
    }
}

impl Embedder for StaticEmbedder {
    fn id(&self) -> &str {
        ID
    }

    fn dimension(&self) -> usize {
        self.model.dim()
    }

    fn embed(&self, texts: &[String]) -> Result<Vec<f32>> {
        Ok(self.model.encode_flat_with_args(texts, Some(TOKENS_MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cosine(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn like_meanings_lie_near_each_other() {
        let embedder = StaticEmbedder::new().unwrap();
        let texts = ["the parcel never arrived", "my package was not delivered", "the app crashes at login"];
        let vectors = embedder.embed(&texts.map(str::to_owned)).unwrap();
        assert_eq!(embedder.dimension(), 256);
        let vector = |n: usize| &vectors[n * 256..(n + 1) * 256];
        assert!((cosine(vector(0), vector(0)) - 1.0).abs() < 1e-3);
        assert!(cosine(vector(0), vector(1)) > cosine(vector(0), vector(2)) + 0.2);
    }
}
