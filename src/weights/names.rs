//! One name for each tensor: what libraries of different ages write, as the newest published files have it.

/// The canonical name of a stored tensor (`component/key`, or a bare key).
pub fn canonical(name: &str) -> String {
    let (component, key) = name.split_once('/').map_or(("", name), |(component, key)| (component, key));
    let slash = if component.is_empty() { "" } else { "/" };
    let mut key = key.to_owned();
    // transformers 5 writes CLIP's text model without the prefix that published files have.
    let clip = ["embeddings.token_embedding.", "embeddings.position_embedding.", "final_layer_norm."];
    let layer = [".self_attn.", ".mlp.", ".layer_norm1.", ".layer_norm2."];
    let of_layer = key.starts_with("encoder.layers.") && layer.iter().any(|part| key.contains(part));
    if of_layer || clip.iter().any(|start| key.starts_with(start)) {
        key.insert_str(0, "text_model.");
    }
    // T5's encoder shares the embedding of its decoder; either name may be the one that was written.
    if key == "encoder.embed_tokens.weight" {
        key = "shared.weight".to_owned();
    }
    // Attention of autoencoders, before diffusers 0.17.
    if key.contains(".attentions.") {
        for (old, new) in [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")] {
            key = key.replace(&format!(".{old}."), &format!(".{new}."));
        }
    }
    // Latent diffusion's own name of what diffusers calls otherwise; Janus kept it.
    key = key.replace(".nin_shortcut.", ".conv_shortcut.");
    format!("{component}{slash}{key}")
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn old_and_new_names_meet() {
        for (stored, expected) in [
            ("vae/decoder.mid_block.attentions.0.query.weight", "vae/decoder.mid_block.attentions.0.to_q.weight"),
            ("decoder.mid_block.attentions.0.proj_attn.bias", "decoder.mid_block.attentions.0.to_out.0.bias"),
            ("text_encoder/encoder.layers.0.mlp.fc1.bias", "text_encoder/text_model.encoder.layers.0.mlp.fc1.bias"),
            ("text_encoder/text_model.final_layer_norm.bias", "text_encoder/text_model.final_layer_norm.bias"),
            ("text_encoder/encoder.embed_tokens.weight", "text_encoder/shared.weight"),
            ("vqmodel.decoder.up.0.block.0.nin_shortcut.bias", "vqmodel.decoder.up.0.block.0.conv_shortcut.bias"),
            // TAESD, BERT and T5 keep theirs.
            ("vae/encoder.layers.0.weight", "vae/encoder.layers.0.weight"),
            (
                "text_encoder/encoder.layer.0.attention.self.query.bias",
                "text_encoder/encoder.layer.0.attention.self.query.bias",
            ),
            ("text_encoder/encoder.final_layer_norm.weight", "text_encoder/encoder.final_layer_norm.weight"),
        ] {
            assert_eq!(canonical(stored), expected);
            assert_eq!(canonical(expected), expected);
        }
    }
}
