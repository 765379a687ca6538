//! Reading images: what layers make of each other, and what is wrong with an image.

use super::*;

fn layer(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, entry_type, data) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*entry_type);
        header.set_mode(0o644);
        header.set_uid(1);
        header.set_gid(2);
        header.set_mtime(3);
        if matches!(entry_type, tar::EntryType::Link | tar::EntryType::Symlink) {
            header.set_size(0);
            builder.append_link(&mut header, path, data).unwrap();
        } else {
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, path, data.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn merged(layers: &[Vec<u8>]) -> Result<Image> {
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| format!("sha256:{}", sha256(layer)))
        .collect();
    let config = serde_json::json!({"rootfs": {"type": "layers", "diff_ids": diff_ids}});
    assemble(config.to_string().as_bytes(), layers)
}

const DIRECTORY: tar::EntryType = tar::EntryType::Directory;
const FILE: tar::EntryType = tar::EntryType::Regular;

#[test]
fn whiteouts_hide_lower_layers_only() {
    let lower = layer(&[
        ("a", DIRECTORY, ""),
        ("a/x", FILE, "x"),
        ("a/y", FILE, "y"),
        ("b", FILE, "b"),
    ]);
    let upper = layer(&[
        ("a", DIRECTORY, ""),
        ("a/z", FILE, "z"),
        ("a/.wh..wh..opq", FILE, ""),
        (".wh.b", FILE, ""),
    ]);
    let image = merged(&[lower, upper]).unwrap();
    let paths: Vec<&[u8]> = image.tree.nodes.keys().map(Vec::as_slice).collect();
    assert_eq!(paths, [b"a".as_slice(), b"a/z"]);
    assert_eq!(image.problems, Vec::<String>::new());
}

#[test]
fn a_file_over_a_directory_takes_its_children_away() {
    let lower = layer(&[("a", DIRECTORY, ""), ("a/x", FILE, "x")]);
    let image = merged(&[lower, layer(&[("a", FILE, "now a file")])]).unwrap();
    assert_eq!(image.tree.nodes.len(), 1);
}

#[test]
fn hard_links_share_their_inode() {
    let image = merged(&[layer(&[("a", FILE, "x"), ("b", tar::EntryType::Link, "a")])]).unwrap();
    assert_eq!(image.tree.get("a"), image.tree.get("b"));
}

#[test]
fn problems_and_lies_are_found() {
    let twice = merged(&[layer(&[("a", FILE, "x"), ("a", FILE, "x")])]).unwrap();
    assert_eq!(twice.problems, ["layer 0 holds a twice"]);
    let parentless = merged(&[layer(&[("d/a", FILE, "x")])]).unwrap();
    assert_eq!(parentless.problems, ["layer 0: d/a comes before its directory"]);
    let lie = serde_json::json!({"rootfs": {"type": "layers", "diff_ids": ["sha256:00"]}});
    assert!(
        assemble(lie.to_string().as_bytes(), &[layer(&[])])
            .unwrap_err()
            .to_string()
            .contains("DiffID")
    );
    assert!(decompress(b"plain", Some("application/vnd.oci.image.layer.v1.tar+gzip")).is_err());
    assert!(layer::clean(b"a/../../b").is_err());
}

#[test]
fn config_normal_form_leaves_empty_fields_out() {
    let config = serde_json::json!({"os": "linux", "author": "", "config":
        {"Cmd": [], "Entrypoint": null, "Labels": {}, "ArgsEscaped": true, "User": "u"}});
    assert_eq!(
        build_config(&config),
        serde_json::json!({"os": "linux", "config": {"User": "u"}})
    );
}
