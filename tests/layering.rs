//! Which room may import what (the table in ARCHITECTURE.md), read off the sources.

use std::{
    fs,
    path::{Path, PathBuf},
};

const ROOMS: [&str; 5] = ["prompt", "text", "denoise", "autoencoder", "pixels"];

/// Modules of ours that the file at `path` (relative to src/) must not name.
fn forbidden(path: &str) -> Vec<&'static str> {
    let room = path.split(['/', '.']).next().unwrap();
    let mut list = match room {
        "values" | "error" => {
            vec!["prompt", "text", "denoise", "autoencoder", "pixels", "pipeline", "layers", "weights", "web", "values"]
        }
        "layers" | "weights" => [&ROOMS[..], &["pipeline", "web"]].concat(),
        "pipeline" => vec!["web"],
        "web" | "lib" => vec![],
        room => {
            assert!(
                ROOMS.contains(&room),
                "src/{path}: a new room; give it a line in this test and in ARCHITECTURE.md"
            );
            let mut list: Vec<_> = ROOMS.into_iter().filter(|other| *other != room).collect();
            list.extend(["pipeline", "web"]);
            list
        }
    };
    if room == "weights" {
        list.push("layers");
    }
    list
}

/// Texts that must not stand in the file at `path`, and why.
fn banned(path: &str) -> Vec<(&'static str, &'static str)> {
    let mut list = Vec::new();
    if !path.starts_with("web/") && path != "lib.rs" {
        list.extend([
            ("web_sys", "only web/ knows the browser"),
            ("js_sys", "only web/ knows the browser"),
            ("std::fs", "files are the command line's affair"),
            ("Instant", "there is no clock in wasm"),
        ]);
    }
    list.extend([
        (".into_data()", "a blocking readback panics in a browser; use into_data_async"),
        (".to_data()", "a blocking readback panics in a browser; use to_data_async"),
        ("into_scalar()", "a blocking readback panics in a browser"),
        ("block_on(", "nothing here may block"),
    ]);
    if path.starts_with("denoise/schedule/") {
        list.extend([
            ("burn", "schedules are plain numbers"),
            ("dit::", "schedules know no model"),
            ("unet::", "schedules know no model"),
        ]);
    }
    list
}

fn sources(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files
}

/// The code of a file: without comments, and without its unit tests, which may do as they like.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The modules of ours that `code` names: `crate::room` and each first segment in `crate::{...}`.
fn imports(code: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for after in code.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            None => found.push(name(after)),
            Some(list) => {
                // Walk the braces; a name right after the opening one or a comma of the outer level is a module.
                let (mut depth, mut start) = (0, 0);
                for (i, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' | ',' if depth == 0 => {
                            found.push(name(list[start..i].trim_start()));
                            start = i + 1;
                            if c == '}' {
                                break;
                            }
                        }
                        '}' => depth -= 1,
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

fn violations(path: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let forbidden = forbidden(path);
    let imports = imports(&code).into_iter().filter(|import| forbidden.contains(&import.as_str()));
    let mut list: Vec<_> = imports.map(|import| format!("src/{path} imports crate::{import}")).collect();
    let banned = banned(path).into_iter().filter(|(word, _)| code.contains(word));
    list.extend(banned.map(|(word, why)| format!("src/{path} uses {word}: {why}")));
    list
}

#[test]
fn every_room_keeps_to_its_imports() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&src, "rs");
    assert!(files.len() > 20);
    let list: Vec<_> = files
        .iter()
        .flat_map(|file| {
            let path = file.strip_prefix(&src).unwrap().to_str().unwrap();
            violations(path, &fs::read_to_string(file).unwrap())
        })
        .collect();
    assert!(list.is_empty(), "{}", list.join("\n"));
}

#[test]
fn the_page_uses_the_package_as_a_stranger_would() {
    let www = Path::new(env!("CARGO_MANIFEST_DIR")).join("www");
    let own: Vec<String> =
        sources(&www, "js").iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    for file in sources(&www, "js") {
        let text = fs::read_to_string(&file).unwrap();
        for quoted in text.lines().filter(|line| line.starts_with("import ") || line.starts_with("} from ")) {
            let from = quoted.split('\'').nth(1).unwrap_or_default();
            let name = from.trim_start_matches("./");
            let public = ["pkg/index.js", "pkg/element.js"].contains(&name);
            assert!(public || own.iter().any(|own| own == name), "{} imports {from}", file.display());
        }
    }
}

#[test]
fn a_wrong_import_is_found() {
    assert_eq!(violations("text/bert.rs", "use crate::denoise::noise;").len(), 1);
    assert_eq!(
        violations(
            "text/bert.rs",
            "use crate::{\n    Error, Result,\n    layers::{A, B},\n    pixels::{self, Alpha},\n};"
        )
        .len(),
        1
    );
    assert_eq!(violations("values.rs", "use crate::weights::Config;").len(), 1);
    assert_eq!(violations("denoise/schedule/ddim.rs", "use burn::tensor::Tensor;").len(), 1);
    assert_eq!(violations("pipeline/x.rs", "let v = tensor.into_data();").len(), 1);
    assert!(
        violations("text/bert.rs", "// crate::denoise\nuse crate::{values::TokenIds, weights::Config};").is_empty()
    );
}
