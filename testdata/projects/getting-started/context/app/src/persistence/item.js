const { v4 } = require('uuid');
module.exports = () => ({ id: v4(), completed: false });
