//! Pictures to start from, masks over them, and files to draw into.

use std::{fs, path::PathBuf};

use image::{ImageFormat, Rgba, RgbaImage, guess_format};

use crate::support::*;

const SIZE: (u32, u32) = (48, 32);

fn pictures(name: &str) -> PathBuf {
    fixture("../pictures").join(name)
}

/// Draws from a picture of the fixtures; gives the result and what was said.
#[track_caller]
fn from(scratch: &Scratch, init: &str, more: &[&str]) -> (RgbaImage, String) {
    let model = fixture("sd15_img2img");
    let out = scratch.path("out.png");
    let base = ["generate", "--model", text(&model), "--prompt", "", "--init", init, "--steps", "2", "--out", &out];
    let output = run(&[&base[..], more].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{init}: {said}");
    (image::open(&out).unwrap().into_rgba8(), said)
}

#[test]
fn any_picture_is_a_start() {
    let scratch = Scratch::new("init");
    let (plain, said) = from(&scratch, text(&pictures("plain.png")), &[]);
    assert_eq!(plain.dimensions(), SIZE);
    assert!(!said.contains("scaled"), "{said}");
    assert_eq!(from(&scratch, text(&pictures("without_ending")), &[]).0, plain);
    for name in ["photo.jpg", "jpeg_named.png", "alpha.webp", "grey16.png", "palette_transparent.png", "one_bit.png"] {
        assert_eq!(from(&scratch, text(&pictures(name)), &[]).0.dimensions(), SIZE, "{name}");
    }
    // A phone's photo stands upright.
    assert_eq!(from(&scratch, text(&pictures("turned.jpg")), &[]).0.dimensions(), (32, 48));

    let odd = |width: u32, height: u32| {
        let path = scratch.path(&format!("{width}x{height}.png"));
        RgbaImage::from_fn(width, height, |x, y| Rgba([x as u8, y as u8, 99, 255])).save(&path).unwrap();
        path
    };
    for ((width, height), size) in [((50, 33), (48, 32)), ((1, 1), (32, 32)), ((900, 300), (32, 32))] {
        let (picture, said) = from(&scratch, &odd(width, height), &["--strength", "0.5"]);
        assert_eq!(picture.dimensions(), size, "{width} x {height}");
        assert!(said.contains(&format!("of {width} x {height} is scaled to cover {} x {}", size.0, size.1)), "{said}");
    }
    assert_eq!(from(&scratch, &odd(50, 33), &["--size", "32x48"]).0.dimensions(), (32, 48));
    let (model, out, init) = (fixture("sd15_img2img"), scratch.path("x.png"), odd(50, 33));
    let base = ["generate", "--model", text(&model), "--prompt", "", "--init", &init, "--out", &out];
    refused(&[&base[..], &["--size", "30x31"]].concat(), 1, &["width of 30", "multiple"]);
    refused(
        &[
            "generate",
            "--model",
            text(&model),
            "--prompt",
            "x",
            "--init",
            text(&model.join("model_index.json")),
            "--out",
            &out,
        ],
        1,
        &["model_index.json", "PNG, JPEG or WebP"],
    );
}

#[test]
fn a_mask_is_read_as_it_is_meant_and_spares_what_it_spares() {
    let scratch = Scratch::new("mask");
    let init = image::open(pictures("plain.png")).unwrap().into_rgba8();
    let marked = |x: u32, y: u32| (16..32).contains(&x) && (8..24).contains(&y);
    let masks =
        [("white", [0, 0, 0, 255], [255; 4]), ("hole", [0, 0, 0, 255], [0; 4]), ("strokes", [0; 4], [0, 0, 0, 255])];
    let mut drawn = Vec::new();
    for (name, ground, mark) in masks {
        let path = scratch.path(name);
        let mask = RgbaImage::from_fn(SIZE.0, SIZE.1, |x, y| Rgba(if marked(x, y) { mark } else { ground }));
        mask.save_with_format(&path, ImageFormat::Png).unwrap();
        let (picture, said) = from(&scratch, text(&pictures("plain.png")), &["--mask", &path]);
        assert_eq!(said.contains("note: the mask"), name != "white", "{said}");
        drawn.push(picture);
    }
    assert!(drawn[0] == drawn[1] && drawn[0] == drawn[2]);
    let differs = |x: u32, y: u32| drawn[0].get_pixel(x, y) != init.get_pixel(x, y);
    let all = || (0..SIZE.0).flat_map(|x| (0..SIZE.1).map(move |y| (x, y)));
    assert!(all().all(|(x, y)| marked(x, y) || !differs(x, y)), "what is spared is kept to the byte");
    assert!(all().filter(|(x, y)| marked(*x, *y) && differs(*x, *y)).count() > 200);
    // A mask of another size is laid over the picture.
    let (large, white) = (scratch.path("large.png"), image::open(scratch.path("white")));
    let white = white.or_else(|_| image::load_from_memory(&fs::read(scratch.path("white")).unwrap())).unwrap();
    white.resize_exact(96, 96, image::imageops::FilterType::Nearest).save(&large).unwrap();
    assert!(from(&scratch, text(&pictures("plain.png")), &["--mask", &large]).0 == drawn[0]);
    // One that marks nothing.
    let black = scratch.path("black.png");
    RgbaImage::from_pixel(SIZE.0, SIZE.1, Rgba([0, 0, 0, 255])).save(&black).unwrap();
    let (model, out, plain) = (fixture("sd15_img2img"), scratch.path("x.png"), pictures("plain.png"));
    let base = ["generate", "--model", text(&model), "--prompt", "", "--init", text(&plain), "--out", &out];
    refused(&[&base[..], &["--mask", &black]].concat(), 1, &["no white pixel"]);
}

#[test]
fn an_ending_is_written_as_it_says_and_seeds_are_told() {
    let scratch = Scratch::new("endings");
    let model = fixture("sticker_tiny");
    let draw = |out: &str, more: &[&str]| {
        let base = ["generate", "--model", text(&model), "--prompt", "x", "--steps", "1", "--out", out];
        let output = run(&[&base[..], more].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        said
    };
    for (name, format) in [("a.jpg", ImageFormat::Jpeg), ("a.webp", ImageFormat::WebP), ("a.PNG", ImageFormat::Png)] {
        draw(&scratch.path(name), &[]);
        assert_eq!(guess_format(&fs::read(scratch.path(name)).unwrap()).unwrap(), format);
    }
    let alpha = |name: &str| image::open(scratch.path(name)).unwrap();
    assert_eq!(alpha("a.webp").into_rgba8(), alpha("a.PNG").into_rgba8());
    assert!(alpha("a.jpg").color().has_alpha() != alpha("a.PNG").color().has_alpha());
    draw(&scratch.path("cat"), &["--count", "2"]);
    assert!(["cat-0.png", "cat-1.png"].iter().all(|name| alpha(name).width() > 0));
    let out = scratch.path("cat.gif");
    refused(
        &["generate", "--model", text(&model), "--prompt", "x", "--out", &out],
        1,
        &["cat.gif", ".png, .jpg or .webp"],
    );

    // -1 is a new seed each time, and the one that is told draws the same again.
    let seed = |said: &str| said.lines().find_map(|l| l.strip_prefix("note: the seed is ").map(str::to_owned)).unwrap();
    let [first, second] = [0, 1].map(|_| seed(&draw(&scratch.path("b.png"), &["--seed", "-1"])));
    assert_ne!(first, second);
    let told = draw(&scratch.path("c.png"), &["--seed", &second]);
    assert!(!told.contains("the seed is"), "{told}");
    assert_eq!(fs::read(scratch.path("b.png")).unwrap(), fs::read(scratch.path("c.png")).unwrap());
}
