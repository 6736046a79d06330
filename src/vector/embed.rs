//! The embedder that is built in: a static model, which looks up a vector for each token and takes their mean. No
//! network, no files, some hundred thousand short texts a second and core.

use std::sync::LazyLock;

use model2vec_rs::model::StaticModel;

use crate::error::{Error, Result};
use crate::ports::Embedder;

/// The model's name; it changes with the model, since vectors of different models cannot be compared.
const ID: &str = "static-minilm-256";
const TOKENIZER: &[u8] = include_bytes!("../../assets/models/static-minilm-256/tokenizer.json");
const WEIGHTS: &[u8] = include_bytes!("../../assets/models/static-minilm-256/model.safetensors");
const CONFIG: &[u8] = include_bytes!("../../assets/models/static-minilm-256/config.json");
/// Numbers of one of its vectors.
const DIMENSION: usize = 256;
/// Tokens of a text that are looked at; longer texts were cut into pieces before.
const TOKENS_MAX: usize = 1024;

/// Read out of the binary with the first text: a start without one is not kept waiting for it.
static MODEL: LazyLock<Result<StaticModel, String>> = LazyLock::new(|| {
    StaticModel::from_bytes(TOKENIZER, WEIGHTS, CONFIG, Some(true)).map_err(|error| error.to_string())
});

/// The built-in model.
#[derive(Debug, Clone, Copy)]
pub struct StaticEmbedder;

impl Embedder for StaticEmbedder {
    fn id(&self) -> &str {
        ID
    }

    fn dimension(&self) -> usize {
        DIMENSION
    }

    fn embed(&self, texts: &[String]) -> Result<Vec<f32>> {
        let model = MODEL.as_ref();
        let model = model.map_err(|error| Error::bug(format!("read the built-in model `{ID}`: {error}")))?;
        Ok(model.encode_flat_with_args(texts, Some(TOKENS_MAX)))
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
        let embedder = StaticEmbedder;
        let texts = ["the parcel never arrived", "my package was not delivered", "the app crashes at login"];
        let vectors = embedder.embed(&texts.map(str::to_owned)).unwrap();
        assert_eq!((embedder.dimension(), vectors.len()), (256, 3 * 256));
        let vector = |n: usize| &vectors[n * 256..(n + 1) * 256];
        assert!((cosine(vector(0), vector(0)) - 1.0).abs() < 1e-3);
        assert!(cosine(vector(0), vector(1)) > cosine(vector(0), vector(2)) + 0.2);
    }
}
