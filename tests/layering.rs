//! Which room may import what (the table in ARCHITECTURE.md), and that no files go round in a circle; read off the sources.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const ROOMS: [&str; 8] = ["prompt", "text", "autoregress", "denoise", "autoencoder", "pixels", "animation", "score"];

/// Modules of ours that the file at `path` (relative to src/) must not name.
fn forbidden(path: &str) -> Vec<&'static str> {
    let room = path.split(['/', '.']).next().unwrap();
    let mut list = match room {
        "values" | "error" | "noise" => {
            [&ROOMS[..], &["pipeline", "layers", "weights", "web", "gpu", "values"]].concat()
        }
        "layers" | "weights" => [&ROOMS[..], &["pipeline", "web", "gpu"]].concat(),
        "pipeline" => vec!["web", "gpu"],
        "gpu" => [&ROOMS[..], &["layers", "weights", "web"]].concat(),
        "web" | "lib" => vec![],
        room => {
            assert!(
                ROOMS.contains(&room),
                "src/{path}: a new room; give it a line in this test and in ARCHITECTURE.md"
            );
            let mut list: Vec<_> = ROOMS.into_iter().filter(|other| *other != room).collect();
            list.extend(["pipeline", "web", "gpu"]);
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
    if ["autoregress/sample.rs", "autoregress/search.rs"].contains(&path) {
        list.push(("burn", "sampling and search are plain numbers"));
    }
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
    let files = rust_sources();
    assert!(files.len() > 20);
    let list: Vec<_> = files.iter().flat_map(|(path, text)| violations(path, text)).collect();
    assert!(list.is_empty(), "{}", list.join("\n"));
}

/// Every file of `files`, path relative to src/ and text.
fn rust_sources() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&src, "rs");
    let relative = |file: &PathBuf| file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
    files.iter().map(|file| (relative(file), fs::read_to_string(file).unwrap())).collect()
}

/// `a::{b, c::d}` as its paths; `text` begins with an identifier, and what follows the paths is left aside.
fn paths(text: &str) -> Vec<Vec<String>> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let first = text[..end].to_owned();
    let rest = text[end..].strip_prefix("::").unwrap_or_default();
    let longer = |tails: Vec<Vec<String>>| -> Vec<Vec<String>> {
        tails.into_iter().map(|tail| [vec![first.clone()], tail].concat()).collect()
    };
    if let Some(list) = rest.strip_prefix('{') {
        let (mut depth, mut start, mut tails) = (0, 0, Vec::new());
        for (i, c) in list.char_indices() {
            if depth == 0 && (c == ',' || c == '}') {
                tails.extend(Some(list[start..i].trim()).filter(|one| !one.is_empty()).map(paths).unwrap_or_default());
                start = i + 1;
            }
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                _ => {}
            }
        }
        return longer(tails);
    }
    if rest.starts_with(|c: char| c.is_alphabetic() || c == '_') { longer(paths(rest)) } else { vec![vec![first]] }
}

/// The paths that `code` names, and whether each is only passed on (`pub use`).
fn named_paths(code: &str) -> Vec<(Vec<String>, bool)> {
    let mut found = Vec::new();
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut before = ' ';
    let mut statement = 0;
    for (i, c) in code.char_indices() {
        if c == ';' {
            statement = i + 1;
        }
        let begins = word(c) && !word(before) && before != ':';
        if begins && code[i..].trim_start_matches(word).starts_with("::") {
            let passed_on = code[statement..i].trim_end().ends_with("pub use");
            found.extend(paths(&code[i..]).into_iter().map(|path| (path, passed_on)));
        }
        before = c;
    }
    found
}

/// The modules of `path`, a file: `a/b.rs` and `a/b/mod.rs` are both `[a, b]`.
fn module(path: &str) -> Vec<String> {
    let mut module: Vec<String> = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if ["mod", "lib"].contains(&module.last().unwrap().as_str()) {
        module.pop();
    }
    module
}

/// The circles among the files and folders of each folder, as sentences. A `mod.rs` stands in one only with code of its own:
/// what it declares or passes on belongs to the file that holds it.
fn circles(files: &[(String, String)]) -> Vec<String> {
    let modules: BTreeSet<Vec<String>> = files.iter().map(|(path, _)| module(path)).collect();
    let is_index = |path: &str| path.ends_with("mod.rs") || path == "lib.rs";
    // What a folder passes on: the name, and the child that holds it.
    let mut passed_on: BTreeMap<(Vec<String>, String), String> = BTreeMap::new();
    let mut names = Vec::new();
    for (path, text) in files {
        let here = module(path);
        for (named, public) in named_paths(&code(text)) {
            let supers = named.iter().take_while(|part| *part == "super").count();
            let target = match named[0].as_str() {
                "crate" => named[1..].to_vec(),
                "self" => [&here[..], &named[1..]].concat(),
                "super" if supers <= here.len() => [&here[..here.len() - supers], &named[supers..]].concat(),
                first if modules.contains(&[&here[..], &[first.to_owned()]].concat()) => {
                    [&here[..], &named[..]].concat()
                }
                _ => continue,
            };
            if public && is_index(path) {
                if let (Some(child), Some(name)) = (target.get(here.len()), target.last()) {
                    passed_on.insert((here.clone(), name.clone()), child.clone());
                }
            } else {
                names.push((path.clone(), target));
            }
        }
    }
    // folder -> from -> to
    let mut graphs: BTreeMap<Vec<String>, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (path, target) in names {
        let here = module(&path);
        let inside = here.iter().zip(&target).take_while(|(a, b)| a == b).count();
        let folder = here[..inside].to_vec();
        // A file's own items, and whoever names the folder that it stands in as a whole.
        if !is_index(&path) && inside == here.len() {
            continue;
        }
        let from = here.get(inside).cloned().unwrap_or_else(|| "mod".to_owned());
        let Some(name) = target.get(inside) else { continue };
        let child = [&folder[..], std::slice::from_ref(name)].concat();
        let to = if modules.contains(&child) {
            name.clone()
        } else {
            passed_on.get(&(folder.clone(), name.clone())).cloned().unwrap_or_else(|| "mod".to_owned())
        };
        if from != to {
            graphs.entry(folder).or_default().entry(from).or_default().insert(to);
        }
    }
    let mut found = Vec::new();
    for (folder, graph) in graphs {
        let reached = |start: &str| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![start.to_owned()]);
            while let Some(node) = next.pop() {
                next.extend(graph.get(&node).into_iter().flatten().filter(|to| seen.insert((*to).clone())).cloned());
            }
            seen
        };
        let all: BTreeMap<&String, BTreeSet<String>> = graph.keys().map(|node| (node, reached(node))).collect();
        let mut told = BTreeSet::new();
        for (node, seen) in &all {
            if seen.contains(*node) && told.insert((*node).clone()) {
                let circle: Vec<_> =
                    all.keys().filter(|other| seen.contains(**other) && all[*other].contains(*node)).collect();
                told.extend(circle.iter().map(|other| (**other).clone()));
                let names: Vec<_> = circle.iter().map(|name| name.as_str()).collect();
                found.push(format!("src/{}: {} import each other", folder.join("/"), names.join(", ")));
            }
        }
    }
    found
}

#[test]
fn no_files_import_each_other() {
    let found = circles(&rust_sources());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_circle_is_found() {
    let found = |files: &[(&str, &str)]| {
        circles(&files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect::<Vec<_>>())
    };
    let index = ("a/mod.rs", "mod b;\nmod c;\npub use b::Bee;\npub use c::{self, Sea,};");
    let (to_c, to_b) = ("use super::Sea;", "fn f() { crate::a::b::g() }");
    assert_eq!(found(&[index, ("a/b.rs", to_c), ("a/c.rs", to_b)]), ["src/a: b, c import each other"]);
    assert!(found(&[index, ("a/b.rs", to_c), ("a/c.rs", "")]).is_empty());
    assert!(
        found(&[index, ("a/b.rs", "/// See [`Sea`](super::Sea).\nuse crate::x::Y;"), ("a/c.rs", to_b), ("x.rs", "")])
            .is_empty()
    );
    // By way of a third, of a whole folder, and of a mod.rs with code of its own.
    let third = [
        ("a/mod.rs", "mod b; mod c; mod d;"),
        ("a/b.rs", "use super::{c::C, d,};"),
        ("a/c.rs", "use super::d::D;"),
        ("a/d.rs", "use super::b;"),
    ];
    assert_eq!(found(&third), ["src/a: b, c, d import each other"]);
    let folders = [
        ("lib.rs", "mod a; mod e;"),
        ("a/mod.rs", ""),
        ("a/b.rs", "use crate::e::E;"),
        ("e.rs", "use crate::a::b::Bee;"),
    ];
    assert_eq!(found(&folders), ["src/: a, e import each other"]);
    let own = [("a/mod.rs", "mod b;\nstruct Own;\nfn f() { b::g() }"), ("a/b.rs", "use super::Own;")];
    assert_eq!(found(&own), ["src/a: b, mod import each other"]);
}

#[test]
fn the_page_uses_the_package_as_a_stranger_would() {
    let www = Path::new(env!("CARGO_MANIFEST_DIR")).join("www");
    let own: Vec<String> =
        sources(&www, "js").iter().map(|file| file.strip_prefix(&www).unwrap().to_str().unwrap().to_owned()).collect();
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
