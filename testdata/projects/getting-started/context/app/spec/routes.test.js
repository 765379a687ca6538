const assert = require('assert');
require('express');
assert.strictEqual(require('../src/persistence/item.js')().completed, false);
console.log('ok');
