use super::*;

fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("llmd-expert-load-{}-{name}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    path
}

fn npy(dtype: &str, shape: &str, body: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = npy::MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(body);
    bytes
}

#[test]
fn numpy_s_files_are_read() {
    let body: Vec<u8> = (1_i64..=8).flat_map(i64::to_le_bytes).collect();
    let load = read_load(&file("a.npy", &npy("<i8", "(2, 2, 2)", &body))).unwrap();
    assert_eq!((load.layers(), load.experts()), (2, 2));
    assert_eq!(load.layer(0), [6.0, 8.0]);
    let body: Vec<u8> = [0.5_f32, 1.5].iter().flat_map(|it| it.to_le_bytes()).collect();
    let load = read_load(&file("b.npy", &npy("<f4", "(1, 2)", &body))).unwrap();
    assert_eq!(load.layer(0), [0.5, 1.5]);
}

#[test]
fn sglang_s_dumps_are_read() {
    let load = read_load(&file("c.json", br#"{"logical_count": [[[1, 2]], [[3, 4]]]}"#)).unwrap();
    assert_eq!(load.layer(0), [4.0, 6.0]);
    assert_eq!(read_load(&file("d.json", b"[[1, 2], [3, 4]]")).unwrap().layer(1), [3.0, 4.0]);
}

#[test]
fn maps_are_written_as_they_are_read() {
    let path = file("e.json", br#"{"physical_to_logical_map": [[0, 1, -1]]}"#);
    let slots = read_map(&path).unwrap();
    assert_eq!(slots, [[0, 1, EMPTY]]);
    let map = LayerMap { experts: slots[0].clone(), shares: Vec::new(), from_node: Vec::new() };
    write_map(&path, &[map]).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), br#"{"physical_to_logical_map":[[0,1,-1]]}"#);
}

#[test]
fn vllm_s_lines_are_found_among_others() {
    let log =
        b"INFO x\nINFO 10:00 [eplb_state.py:634] EPLB step: 10 for model m: avg_tokens=12.50, \
        max_tokens=25, balancedness=0.5000, steps until the next rearrangement: 90\n";
    let found = read_vllm_log(&file("f.log", log)).unwrap();
    assert_eq!(found, [BalancednessLine { step: 10, avg_tokens: 12.5, max_tokens: 25.0 }]);
    let error = read_vllm_log(&file("g.log", b"nothing")).unwrap_err().to_string();
    assert!(error.contains("log_balancedness"), "{error}");
}

#[test]
fn what_is_no_load_is_said_with_its_file() {
    let say = |name: &str, bytes: &[u8]| read_load(&file(name, bytes)).unwrap_err().to_string();
    assert!(say("h.json", b"{}").contains("logical_count"));
    assert!(say("i.npy", &npy("<c8", "(1, 2)", b"")).contains("dtype <c8"));
    assert!(say("j.npy", &npy("<f8", "(1, 2)", &[0; 8])).contains("not of shape"));
    assert!(say("k.npy", &npy("<f8", "(2,)", &[0; 16])).contains("layers x experts"));
    assert!(say("l.npy", &npy::MAGIC[..6]).contains("ends within its header"));
    assert!(say("m.json", b"[[1], [1, 2]]").contains("not of one length"));
    assert!(read_load(Path::new("/nowhere.npy")).is_err());
}

use llmd_brain::moe::{EMPTY, LayerMap};
