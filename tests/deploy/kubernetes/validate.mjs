// Reads objects of Kubernetes as a JSON list from stdin; says what their schemas have against them,
// and which fields they do not know: those that no schema looked at.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, resolve } from "node:path";

const require = createRequire(import.meta.url);
// maps whose keys are the user's own
const FREE = new Set(["labels", "annotations", "matchLabels", "data", "requests", "limits", "selector"]);

function watched(value, path, unread) {
    if (value === null || typeof value !== "object")
        return value;
    const copy = Array.isArray(value) ? [] : {};
    for (const [key, inner] of Object.entries(value)) {
        const at = `${path}.${key}`;
        if (!Array.isArray(value) && !FREE.has(path.split(".").pop()))
            unread.add(at);
        copy[key] = watched(inner, at, unread);
    }
    return new Proxy(copy, { get: (from, key) => (unread.delete(`${path}.${String(key)}`), from[key]) });
}

// The compiled schema of a kind. The package's own validate() copies the object first, and so would
// look at every field.
function schema({ apiVersion, kind }) {
    const room = apiVersion.startsWith("monitoring.coreos.com/") ? "@kubernetes-models/prometheus-operator"
        : "kubernetes-models";
    const model = require.resolve(`${room}/${apiVersion}/${kind}`);
    const [at] = readFileSync(model, "utf8").match(/(\.\.\/)+_schemas\/\w+/);
    return require(resolve(dirname(model), `${at}.js`)).validate;
}

let faults = 0;
for (const object of JSON.parse(readFileSync(0, "utf8"))) {
    const validate = schema(object), unread = new Set();
    const say = (text) => { faults++; console.log(`${object.kind} ${object.metadata.name}: ${text}`); };
    if (!validate(watched(object, "", unread)))
        for (const e of validate.errors)
            say(`${e.instancePath} ${e.message ?? JSON.stringify(e.params)}`);
    for (const path of unread)
        say(`${path.slice(1)} is unknown`);
}
process.exit(faults > 0 ? 1 : 0);
