//! The chat template of a language model: what it puts around a prompt.

use std::path::Path;

use inkbloom::{Error, Result};
use minijinja::{Environment, Value, syntax::SyntaxConfig};

use crate::files::{read_json, read_text};

/// Stands for the prompt while the template is filled in; no template holds it.
const PROMPT: &str = "\u{1}prompt\u{1}";

/// What the template in `folder` writes before the prompt of a user and behind it.
///
/// # Errors
/// `BadModel` where there is none, or where it does not write the prompt once, as it is.
pub fn around(folder: &Path) -> Result<[String; 2]> {
    let shown = folder.display();
    let template = match folder.join("chat_template.jinja") {
        file if file.is_file() => read_text(&file)?,
        _ => match read_json(&folder.join("tokenizer_config.json"))?["chat_template"].take() {
            serde_json::Value::String(template) => template,
            _ => {
                return Err(Error::bad_model(format!(
                    "{shown} holds no chat_template.jinja, which prompts are put into"
                )));
            }
        },
    };
    let mut environment = Environment::new();
    // As transformers fills them in.
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.unwrap_or_default());
    let text = Value::from_pairs([("type", "text"), ("text", PROMPT)]);
    let message = Value::from_pairs([("role", Value::from("user")), ("content", Value::from(vec![text]))]);
    let told = [("messages", Value::from(vec![message])), ("add_generation_prompt", Value::from(false))];
    let filled = environment.render_str(&template, Value::from_pairs(told));
    let filled = filled.map_err(|error| {
        Error::bad_model(format!("the chat template in {shown} asks for what this version cannot do: {error}"))
    })?;
    match filled.split(PROMPT).collect::<Vec<_>>()[..] {
        [before, after] => Ok([before.to_owned(), after.to_owned()]),
        _ => Err(Error::bad_model(format!("the chat template in {shown} does not write the prompt once, as it is"))),
    }
}
