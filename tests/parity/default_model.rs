//! The model that the page serves, against the reference sampler on its weights: `tests/fixtures/default_model` is made
//! anew with every new model (see CONTRIBUTING.md).

use std::{fs, path::Path};

use burn::tensor::Device;
use inkbloom::{
    pipeline::Pipeline,
    weights::{
        Tensors,
        bundle::{Loader, Manifest},
    },
};

use crate::{
    pipeline::{request, run},
    stored::psnr,
    support::*,
};

#[test]
fn the_served_bundle_draws_what_python_draws() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("www/models/sticker");
    let manifest = Manifest::parse(&fs::read_to_string(folder.join("manifest.json")).unwrap()).unwrap();
    let shards = manifest.shards.clone();
    let mut loader = Loader::new(manifest, Tensors::new(&Device::flex()));
    for (i, shard) in shards.iter().enumerate() {
        let path = folder.join(&shard.file);
        let bytes =
            fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; ./build.sh setup makes it", path.display()));
        loader.push(i, &bytes).unwrap();
    }
    let (manifest, tensors) = loader.finish().unwrap();
    let mut model = Pipeline::load(&manifest.files, &tensors).unwrap();
    let case = fixture("default_model");
    let reference = crate::support::tensors(&case.join("reference.safetensors"));
    let dump = run(&mut model, &request(&case, &reference));
    let psnr = psnr(&dump.values["image"].1, &reference["image"].1);
    println!("{psnr:.1} dB");
    // The reference has the bundle's weights as floats; pixels are -1 to 1.
    assert!(psnr >= 60.0, "{psnr:.1} dB");
    assert!(dump.generated.warnings.is_empty(), "{:?}", dump.generated.warnings);
}
