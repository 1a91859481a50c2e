//! Programs in pods killed or stopped, from a pod of the node that sees all processes (`hostPID`): it works wherever pods
//! run, and needs no shell.

use super::objects::Pod;
use super::{Node, eventually, image};

/// What is done to a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP: it hangs.
    Stop,
}

/// Does it to the program of a pod, which its image starts under this path.
pub async fn inflict(node: &Node, fault: Fault, pod: &Pod, program: &str) {
    let stop = if fault == Fault::Stop {
        ", \"--stop\""
    } else {
        ""
    };
    let (uid, image) = (&pod.uid, image("echo"));
    // Another test may do the same at the same time.
    let slay = format!("slay-{}", node.installation.namespace);
    let manifest = format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: {slay}, namespace: kube-system }}
spec:
  hostPID: true
  restartPolicy: Never
  automountServiceAccountToken: false
  containers:
  - name: slay
    image: {image}
    command: [\"/slay\", \"--pod\", \"{uid}\", \"--program\", \"{program}\"{stop}]
    securityContext: {{ runAsUser: 0 }}
"
    );
    let kubectl = |arguments: &[&str]| {
        let mut all = vec!["--namespace".to_owned(), "kube-system".to_owned()];
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        all
    };
    let run = async |arguments: &[&str]| {
        let all = kubectl(arguments);
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        node.kubectl.ok(&all).await
    };
    node.kubectl.apply(&manifest).await;
    let phase = ["get", "pod", &slay, "-o", "jsonpath={.status.phase}"];
    let ended = eventually("slay ends", async || {
        let phase = run(&phase).await;
        (phase == "Succeeded" || phase == "Failed").then_some(phase)
    })
    .await;
    let log = run(&["logs", &slay]).await;
    assert_eq!(ended, "Succeeded", "{program} of {}: {log}", pod.name);
    run(&["delete", "pod", &slay, "--grace-period=0", "--force"]).await;
}
