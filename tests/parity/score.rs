use burn::tensor::Device;
use inkbloom::{
    score::{Scorer, ScorerConfig},
    values::TextEmbedding,
    weights::{Config, Tensors},
};

use crate::support::*;

#[test]
fn the_scorer_scores_as_the_reference() {
    for case in cases("score", "scorer_", 3) {
        let config = json(&case.join("config.json"));
        let weights = Tensors::new(&Device::flex());
        load_weights(&case, "", &weights);
        let config = ScorerConfig::read(&Config::new("config.json", &config).unwrap()).unwrap();
        let scorer = Scorer::from_params(&weights.params(""), config).unwrap();
        let reference = tensors(&case.join("reference.safetensors"));
        let text = TextEmbedding {
            hidden: tensor(&reference, "encoder_hidden_states"),
            attention_mask: Some(tensor(&reference, "encoder_attention_mask")),
            pooled: None,
        };
        let scores = scorer.forward(tensor(&reference, "sample"), &text).unwrap();
        assert_close(&case, "output", &numbers(scores), &reference, TOLERANCE);
    }
}
