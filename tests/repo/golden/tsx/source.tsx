function View(p: Props) { return <div>{render(p)}</div>; }
