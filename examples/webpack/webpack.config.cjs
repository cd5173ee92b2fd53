const HtmlPlugin = require('html-webpack-plugin');

module.exports = { entry: './main.js', plugins: [new HtmlPlugin({ template: './index.html' })] };
