// What the TypeScript compiler says that files declare, one JSON object a line: path, line, kind, name.
// node typescript.cjs PATH_OF_typescript.js < list of files
"use strict";
const ts = require(process.argv[2]);
const fs = require("fs");

const KINDS = {
  FunctionDeclaration: "function", ClassDeclaration: "class", InterfaceDeclaration: "interface",
  EnumDeclaration: "enum", EnumMember: "member", TypeAliasDeclaration: "type", ModuleDeclaration: "namespace",
  MethodDeclaration: "method", GetAccessor: "property", SetAccessor: "property",
  PropertyDeclaration: "field",
};
const MEMBERS = { MethodSignature: "method", PropertySignature: "field" };

const isFunction = (node) => node && (ts.isFunctionExpression(node) || ts.isArrowFunction(node) || ts.isClassExpression(node));
const isExported = (node) => !!node.modifiers?.some((one) => one.kind === ts.SyntaxKind.ExportKeyword);

function kindOf(node) {
  const syntax = ts.SyntaxKind[node.kind];
  const parent = node.parent;
  if (ts.isVariableDeclaration(node) && ts.isIdentifier(node.name)) {
    if (isFunction(node.initializer)) return ts.isClassExpression(node.initializer) ? "class" : "function";
    const statement = parent.parent;
    return ts.isVariableStatement(statement) && isExported(statement) ? "constant" : null;
  }
  if (ts.isMethodDeclaration(node) && ts.isObjectLiteralExpression(parent)) return null;
  if ((ts.isGetAccessor(node) || ts.isSetAccessor(node)) && ts.isObjectLiteralExpression(parent)) return null;
  if (MEMBERS[syntax]) {
    const owner = parent.parent;
    return ts.isInterfaceDeclaration(parent) || ts.isTypeAliasDeclaration(owner) ? MEMBERS[syntax] : null;
  }
  if (ts.isBinaryExpression(node) && node.operatorToken.kind === ts.SyntaxKind.EqualsToken) {
    let value = node.right;
    while (ts.isBinaryExpression(value) && value.operatorToken.kind === ts.SyntaxKind.EqualsToken) value = value.right;
    const target = node.left;
    if (!ts.isPropertyAccessExpression(target) || target.expression.kind === ts.SyntaxKind.ThisKeyword) return null;
    return isFunction(value) ? "assigned" : null;
  }
  return KINDS[syntax] ?? null;
}

for (const path of fs.readFileSync(0, "utf8").split("\n").filter(Boolean)) {
  const file = ts.createSourceFile(path, fs.readFileSync(path, "utf8"), ts.ScriptTarget.Latest, true);
  const waiting = [file];
  while (waiting.length) {
    const node = waiting.pop();
    const kind = kindOf(node);
    const named = ts.isBinaryExpression(node) ? node.left.name : node.name;
    if (kind && named) {
      const line = file.getLineAndCharacterOfPosition(named.getStart()).line + 1;
      console.log(JSON.stringify({ path, line, kind, name: named.getText().replace(/^(\[?)["'](.*)["'](\]?)$/s, "$2") }));
    }
    ts.forEachChild(node, (child) => void waiting.push(child));
  }
}
