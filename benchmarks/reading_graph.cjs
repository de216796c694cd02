// Prints, for each call in the TypeScript sources below a folder, where the compiler says that the name is defined.
const path = require("node:path");
const root = path.resolve(process.argv[2]);
const ts = require(require.resolve("typescript", { paths: [root] }));
const files = ts.sys
  .readDirectory(root, [".ts", ".tsx", ".js"], ["**/node_modules/**"], ["**/*"])
  .filter((file) => !path.relative(root, file).includes("node_modules"));
const program = ts.createProgram(files, {
  allowJs: true, noEmit: true, target: ts.ScriptTarget.ESNext, module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler, strict: true, skipLibCheck: true, jsx: ts.JsxEmit.Preserve,
});
const checker = program.getTypeChecker();
const hasCaller = (node) => {
  for (let around = node.parent; around; around = around.parent) {
    if (ts.isFunctionLike(around) || ts.isClassLike(around)) return true;
  }
  return false;
};
const place = (declaration) => {
  const file = declaration.getSourceFile();
  const name = ts.getNameOfDeclaration(declaration);
  const at = file.getLineAndCharacterOfPosition((name ?? declaration).getStart(file));
  return [path.relative(root, file.fileName).split(path.sep).join("/"), at.line + 1, name ? name.getText(file) : "default"];
};
const isOfFile = (one) => ts.isVariableDeclaration(one) && [ts.SyntaxKind.SourceFile, ts.SyntaxKind.ModuleBlock].includes(one.parent.parent.parent?.kind);
const isMember = (one) => ts.isPropertyDeclaration(one) || ts.isPropertySignature(one) || ts.isParameterPropertyDeclaration(one, one.parent);
const isDefinition = (one) =>
  ts.isFunctionLike(one) || ts.isClassLike(one) || ts.isInterfaceDeclaration(one) || isOfFile(one) || isMember(one) ||
  (ts.isVariableDeclaration(one) && one.initializer && ts.isFunctionLike(one.initializer));
const lines = [];
for (const file of program.getSourceFiles()) {
  const name = path.relative(root, file.fileName).split(path.sep).join("/");
  if (name.startsWith("..") || name.includes("node_modules")) continue;
  const waiting = [file];
  while (waiting.length) {
    const node = waiting.pop();
    ts.forEachChild(node, (child) => { waiting.push(child); });
    if (!(ts.isCallExpression(node) || ts.isNewExpression(node)) || !hasCaller(node)) continue;
    const called = ts.isPropertyAccessExpression(node.expression) ? node.expression.name : node.expression;
    if (!ts.isIdentifier(called)) continue;
    let symbol = checker.getSymbolAtLocation(called);
    if (symbol && symbol.flags & ts.SymbolFlags.Alias) symbol = checker.getAliasedSymbol(symbol);
    const declared = (symbol?.declarations ?? []).filter(isDefinition);
    const places = declared.map(place).filter(([file]) => !file.startsWith("..") && !file.includes("node_modules"));
    const at = file.getLineAndCharacterOfPosition(called.getStart(file));
    const isLocal = symbol?.declarations?.some((one) => ts.isParameter(one) || ts.isVariableDeclaration(one));
    const known = declared.length > 0 || isLocal;
    lines.push(JSON.stringify({ site: [name, called.text, at.line + 1, at.character], places: known ? places : null }));
  }
}
console.log(lines.join("\n"));
