//! Agent trees on a simulated viewer's screen, by what it was told of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Told, expect, text};

/// By the session of its root, each tree that is shown.
#[derive(Debug, Default)]
pub struct Screen(BTreeMap<String, Shown>);

#[derive(Debug)]
struct Shown {
    tree: Value,
    at_seq: u64,
}

impl Screen {
    /// Takes in the `data` of an `agent_tree_update`. Returns up to which seq it speaks.
    pub fn see(&mut self, data: &Value) -> Result<u64, String> {
        let root = text(&data["tree_root"])?;
        let at_seq = data["at_seq"].as_u64().ok_or("no at_seq")?;
        if data["removed"] == true {
            let gone = self.0.remove(&root);
            expect(gone.is_some(), "a tree is gone that was not shown")?;
            return Ok(at_seq);
        }
        match data.get("full_tree") {
            Some(tree) => {
                let tree = tree.clone();
                self.0.insert(root.clone(), Shown { tree, at_seq });
            }
            None => self.apply(&root, data, at_seq)?,
        }
        let updated = data["updated_nodes"].as_array().ok_or("no updated_nodes")?;
        expect(
            updated.last() == data.get("updated_node"),
            "another node was updated last",
        )?;
        let total = data["tree_stats"]["total"].as_u64();
        check_tree(&root, &self.0[&root].tree, total)?;
        Ok(at_seq)
    }

    /// The trees that are shown.
    pub fn trees(&self) -> BTreeMap<&str, &Value> {
        let trees = self.0.iter();
        trees
            .map(|(root, shown)| (root.as_str(), &shown.tree))
            .collect()
    }

    fn apply(&mut self, root: &str, data: &Value, at_seq: u64) -> Told {
        let shown = self.0.get_mut(root).ok_or("a patch of nothing")?;
        expect(
            data["base_seq"] == shown.at_seq,
            "a patch of something else",
        )?;
        let patch: Result<json_patch::Patch, _> = serde_json::from_value(data["patch"].clone());
        let patch = patch.map_err(|error| error.to_string())?;
        json_patch::patch(&mut shown.tree, &patch).map_err(|error| error.to_string())?;
        shown.at_seq = at_seq;
        Ok(())
    }
}

// Trees of the simulation are small: nothing of them is left out.
fn check_tree(root: &str, tree: &Value, total: Option<u64>) -> Told {
    expect(tree["session_id"] == root, "another root")?;
    expect(tree["parent_session"].is_null(), "a root has a parent")?;
    let (mut nodes, mut seen) = (vec![tree], BTreeSet::new());
    while let Some(node) = nodes.pop() {
        expect(
            seen.insert(text(&node["session_id"])?),
            "an agent stands twice in its tree",
        )?;
        for child in node["children"].as_array().ok_or("no children")? {
            expect(
                child["parent_session"] == node["session_id"],
                "a child has another parent",
            )?;
            nodes.push(child);
        }
    }
    expect(
        total == Some(seen.len() as u64),
        "the tree has another number of agents",
    )
}
